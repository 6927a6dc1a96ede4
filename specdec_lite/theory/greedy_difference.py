"""Two greedy texts differ, naive and speculative: a tie, rounding, or a bug?

In exact arithmetic greedy speculation gives the naive text. In floating point a forward over several
tokens sums in another order than one over a single token, so its logits differ in their last digits,
and where two tokens almost tie another one may win. How far that can carry is measured, not guessed:
at the first place where the texts part, the logits are compared with those of a float64 copy.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Literal

import torch
from torch import Tensor

from ..models import TransformersModel

# A token that wins, although each logit may err by `error`, lies at most 2 * error below the true best:
# it may have been raised by one, the best lowered by one. Twice that, since the error is measured on one
# forward and the texts come from others.
FACTOR = 4.0

# Of the largest logit: float64 rounds to 1.1e-16, and a sum of n terms errs by up to n times that (Higham,
# "Accuracy and Stability of Numerical Algorithms", 2nd edition 2002, section 3.1); n = 9,000 makes 1e-12.
TIE = 1e-12


Kind = Literal["same", "tie", "rounding", "bug"]


@dataclass(frozen=True)
class Difference:
    """Where two greedy texts part, and why. Its string is two sentences.

    Example:
        >>> print(sd.Difference("same"))
        Same: both texts have the same tokens. There is nothing to explain.
    """

    kind: Kind
    position: int | None = None  # of the first new token that differs, counted from 0
    tokens: tuple[int | None, int | None] = (None, None)  # naive, speculative; None where a text had ended
    behind: tuple[float, float] = (0.0, 0.0)  # how far each token's logit lies below the best, in float64
    behind_own: tuple[float, float] = (0.0, 0.0)  # the same in the model's own dtype
    error: float = 0.0  # largest |logit - float64 logit| over the vocabulary, at this place
    dtype: torch.dtype | None = None  # the model's own

    def __str__(self) -> str:
        if self.kind == "same":
            return "Same: both texts have the same tokens. There is nothing to explain."
        naive, other = ("the end" if token is None else f"token {token}" for token in self.tokens)
        where = f"at new token {self.position} the naive text has {naive} and the speculative one {other}."
        if None in self.tokens:
            return f"Bug: {where} One text goes on where the other ends, which no rounding does."
        far = f"{self.behind[0]:.3g} and {self.behind[1]:.3g} below the best logit"
        own = str(self.dtype).removeprefix("torch.")
        why = {
            "tie": f"In float64 both have the best logit, so either is a greedy text ({far}).",
            "rounding": f"In float64 they lie {far}, and {own} errs by up to {self.error:.3g} here: rounding decided.",
            "bug": f"In float64 they lie {far}, and {own} errs by only {self.error:.3g} here: rounding can't do that.",
        }[self.kind]
        return f"{self.kind.capitalize()}: {where} {why}"


def explain_difference(
    target: TransformersModel,
    prompt_ids: Sequence[int],
    naive_tokens: Sequence[int],
    speculative_tokens: Sequence[int],
    *,
    reference: TransformersModel | None = None,
) -> Difference:
    """Classify the first difference between two greedy texts of one target.

    Both texts must come from the same prompt at temperature 0, with the same budget and stops and
    without processors. "rounding" means that both tokens lie within `FACTOR` times the measured error
    of the best; a bug so small hides there, so look at several texts, and at float64, where rounding
    leaves it no room.

    Args:
        target: the model that both texts follow. Nothing of it is written.
        prompt_ids: token ids of the prompt, at least one.
        naive_tokens, speculative_tokens: new token ids, as `Decoded.tokens` holds them for one prompt.
        reference: `in_float64(target)`, to make the copy once for several texts.

    Returns:
        Difference: its margins and errors in units of a logit.

    Raises:
        TypeError: the target is no `TransformersModel`.
        ValueError: the target is quantised, an empty prompt, or a token outside the vocabulary.

    Without `reference` a float64 copy is made on the CPU: 8 bytes a weight, twice a float32 model and
    four times a bfloat16 one. It costs one forward of each model, over the text up to the difference.
    In that copy transformers still takes norms and rotary angles in float32, as in the model itself.

    Example:
        >>> target = sd.load_pair().target
        >>> greedy = dict(max_new_tokens=4, sampling=sd.Sampling(temperature=0))
        >>> naive = sd.autoregressive(target, [1, 2, 3], **greedy).tokens
        >>> print(sd.explain_difference(target, [1, 2, 3], naive, naive))
        Same: both texts have the same tokens. There is nothing to explain.
    """
    if not isinstance(target, TransformersModel):
        raise TypeError(f"target must be a TransformersModel, got {type(target).__name__}: pass load_pair().target")
    texts = list(naive_tokens), list(speculative_tokens)
    wrong = [token for token in chain(prompt_ids, *texts) if not 0 <= token < target.vocab_size]
    if wrong or not prompt_ids:
        got = f"token {wrong[0]}" if wrong else "an empty prompt"
        raise ValueError(f"needs token ids from 0 to {target.vocab_size - 1} and a prompt of one or more, got {got}")
    pairs = enumerate(zip_longest(*texts))
    position, tokens = next(((i, pair) for i, pair in pairs if pair[0] != pair[1]), (None, None))
    if tokens is None:
        return Difference("same")
    if None in tokens:  # same budget and stops, same tokens so far: one stopped wrongly, or failed to stop
        return Difference("bug", position, tokens)
    before = [*prompt_ids, *texts[0][:position]]
    own = next_logits(target, before)
    true = next_logits(in_float64(target) if reference is None else reference, before)
    error = (own - true).abs().max().item()
    behind, behind_own = (_behind(logits, tokens) for logits in (true, own))
    equal = TIE * true.abs().max().item()
    worst = max(behind)
    kind: Kind = "tie" if worst <= equal else "rounding" if worst <= max(equal, FACTOR * error) else "bug"
    return Difference(kind, position, tokens, behind, behind_own, error, target.dtype)


def _behind(logits: Tensor, tokens: tuple[int, int]) -> tuple[float, float]:
    """How far below the best both tokens lie."""
    naive, other = ((logits.max() - logits[token]).item() for token in tokens)
    return naive, other


@torch.inference_mode()
def next_logits(model: TransformersModel, text: Sequence[int]) -> Tensor:
    """Logits after a text, by one forward without a cache. -> [vocab], float64 on the CPU"""
    ids = torch.tensor([list(text)], device=model.device)  # [1, n]
    return model.module(input_ids=ids, use_cache=False).logits[0, -1].cpu().double()


def in_float64(target: TransformersModel) -> TransformersModel:
    """A copy on the CPU with every weight in float64: 8 bytes a weight there, nothing on the model's device.

    Raises:
        ValueError: the target is quantised, so that its weights are not what they are stored as.
    """
    if getattr(target.module, "hf_quantizer", None) is not None:
        raise ValueError("a quantised model has no float64 copy: compare texts of the model before it was quantised")
    made: dict[int, object] = {}  # deepcopy takes what it finds here for done, so that nothing is copied twice
    for weight in target.module.parameters():
        made[id(weight)] = torch.nn.Parameter(_on_host(weight), requires_grad=False)
    for buffer in target.module.buffers():
        made[id(buffer)] = _on_host(buffer)
    return TransformersModel(copy.deepcopy(target.module, made), target.tokenizer)


def _on_host(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64 if tensor.is_floating_point() else tensor.dtype, copy=True)
