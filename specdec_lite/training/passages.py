"""What a head learns from: conversations, and the target's hidden states in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from ..engines.engine import Span
from ..models import TransformersModel
from .conversations import Conversation


@dataclass(frozen=True)
class Passages:
    """Conversations with what the target made of them: the states that a head reads, and the last ones.

    Recorded once, so that the head can go over them again at its own, much higher speed.
    """

    tokens: list[Tensor]  # [n] each
    first: list[int]  # of each, how many tokens the answer begins after
    given: list[Tensor]  # [n, states * width]
    last: list[Tensor]  # [n, width], behind the final norm: logits are one product away

    @classmethod
    @torch.inference_mode()
    def record(
        cls, target: TransformersModel, conversations: Sequence[Conversation], states: Sequence[int], rows: int = 32
    ) -> Passages:
        """All of `conversations` under the target, in order of their lengths."""
        made = cls([], [], [], [])
        ordered = sorted(conversations, key=lambda each: len(each.prompt) + len(each.answer))
        for begin in tqdm(range(0, len(ordered), rows), desc="states"):
            some = ordered[begin : begin + rows]
            tokens = [torch.tensor(each.prompt + each.answer) for each in some]
            block = pad_sequence(tokens, batch_first=True).to(target.device)  # [rows, longest]
            span = Span(0, target.layers, (*states, target.layers))
            hidden = target.forward_span(block, target.new_cache(*block.shape), span, last_only=True).hidden
            given = torch.cat([hidden[i] for i in states], -1)  # [rows, longest, states * width]
            last = target.module.model.norm(hidden[target.layers])  # [rows, longest, width]
            for row, (each, ids) in enumerate(zip(some, tokens, strict=True)):
                made.tokens.append(ids)
                made.first.append(len(each.prompt))
                made.given.append(given[row, : len(ids)].clone())
                made.last.append(last[row, : len(ids)].clone())
        return made

    def items(self, rows: int) -> Iterator[Tensor]:
        """Endless places in the lists [1], all once an epoch, `rows` of like length after one another."""
        generator = torch.Generator().manual_seed(0)
        while True:
            shift = int(torch.randint(rows, (), generator=generator))
            starts = torch.arange(shift - rows, len(self.tokens), rows)
            for i in torch.randperm(len(starts), generator=generator).tolist():
                chunk = range(max(0, int(starts[i])), min(len(self.tokens), int(starts[i]) + rows))
                yield from torch.tensor([[place] for place in chunk])

    def batch(self, places: Sequence[int], device: torch.device) -> Batch:
        def together(parts: list[Tensor]) -> Tensor:
            return pad_sequence([parts[i] for i in places], batch_first=True).to(device)

        tokens = together(self.tokens)  # [rows, n]
        at = torch.arange(tokens.shape[1])
        learnt = torch.stack([(at >= self.first[i] - 1) & (at < len(self.tokens[i]) - 1) for i in places])
        return Batch(tokens, together(self.given), together(self.last), learnt.to(device))


@dataclass(frozen=True)
class Batch:
    """Some passages, padded on the right."""

    tokens: Tensor  # [rows, n]
    given: Tensor  # [rows, n, states * width]
    last: Tensor  # [rows, n, width]
    learnt: Tensor  # [rows, n]: whether the token after a place is one of the answer's


def frequent(conversations: Sequence[Conversation], count: int, vocab_size: int) -> Tensor:
    """The tokens that answers hold most often. -> ids [count]"""
    seen = Counter(token for each in conversations for token in each.answer)
    rest = (token for token in range(vocab_size) if token not in seen)
    ids = [token for token, _ in seen.most_common(count)]
    return torch.tensor(ids + [next(rest) for _ in range(count - len(ids))])


def split(conversations: Sequence[Conversation], every: int = 32) -> tuple[list[Conversation], list[Conversation]]:
    """To learn from, and to evaluate on."""
    held = [each for i, each in enumerate(conversations) if i % every == 0]
    return [each for i, each in enumerate(conversations) if i % every], held
