"""What stands around the rule and can be wrong as well: the dice, the end of a text, the memory of a penalty."""

from __future__ import annotations

import torch
from torch import Tensor

from ...randomness import SeededStreams
from ...sampling.processors import Processor
from ...stopping import Decode, Stop


class OneUniform(SeededStreams):
    """BUG: a round draws one number to draft and one to accept, and uses them at every position.

    A round's first token is right. From the second on the numbers have decided the one before already, so
    tokens and pairs are off. Enumeration cannot see it, since it stands in for the numbers.
    """

    def begin_round(self) -> None:
        super().begin_round()
        self.to_draft = self.to_draft[:, :1].expand(-1, self.k)
        self.to_accept = self.to_accept[:, :1].expand(-1, self.k)


class LastTokenStop(Stop):
    """BUG: after a round it asks whether the *last* token ends the text, as naive decoding may.

    A stop token that was accepted as a draft lies inside the block, and the text goes on behind it.
    """

    def cut(
        self, before: list[int], block: list[int], budget: int, decode: Decode | None
    ) -> tuple[list[int], str | None]:
        kept = block[:budget]
        if kept[-1] in self.token_ids:
            return kept, "stop"
        return kept, "length" if len(kept) == budget else None


class Ledger:
    """BUG: a processor with a book of its own, in which rejected tokens are never struck out.

    It writes down each token that it is shown after the prompt. A place whose draft was rejected holds another
    token later, and then both are in the book.

    Args:
        processor: what is asked, with the text and the ghosts that haunt it.
        start: length of the prompt, at which a new book begins.
    """

    def __init__(self, processor: Processor, start: int) -> None:
        self.processor, self.start = processor, start
        self.book: dict[tuple[int, int], None] = {}  # (place, token), in the order in which they came

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        text = input_ids[0].tolist()
        if len(text) <= self.start:
            self.book.clear()
        self.book |= {(place, text[place]): None for place in range(self.start, len(text))}
        ghosts = [token for place, token in self.book if place < len(text) and text[place] != token]
        return self.processor(torch.cat([input_ids, input_ids.new_tensor([ghosts])], 1), scores)


def frequency_penalty(input_ids: Tensor, scores: Tensor) -> Tensor:
    """Every time that a token stands in the text already costs it 0.7 of its logit. Keeps no state, so it is right."""
    return scores - 0.7 * torch.bincount(input_ids[0], minlength=scores.shape[1]).to(scores.dtype)
