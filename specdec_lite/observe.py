"""Carry a round from the device to the host: one tensor, one synchronisation."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from .acceptance import overlap, probability_of
from .drafters import Draft
from .trace import Detail

ALTERNATIVES = 3


@dataclass
class Outcome:
    """What the device decided in a round; all tensors still on the device."""

    draft: Draft  # tokens [batch, k], probs [batch, k, vocab]
    p_target: Tensor  # [batch, k + 1, vocab]
    chance: Tensor  # [batch, k]
    uniform: Tensor  # [batch, k]
    accepted: Tensor  # [batch]
    token: Tensor  # [batch]
    peak: Tensor  # [batch], the target's largest logit: not a number where any of them is none
    mass: Tensor  # [batch], of the last token's distribution: not a number where processors left no token

    def to_host(self, detail: Detail) -> list[dict[str, Any]]:
        """For each row, the fields of a `trace.Round` that the device knows. The round's only synchronisation.

        Raises:
            ValueError: the target's logits are not numbers.
        """
        fields = {"peak": self.peak, "mass": self.mass}
        fields |= {"accepted": self.accepted, "token": self.token, "drafted": self.draft.tokens}
        if detail != "off":
            fields |= self._numbers()
        if detail == "full":
            fields |= {"full_target": self.p_target, "full_draft": self.draft.probs}
        # Side by side they become float64 (float32 on mps), which holds a token id exactly.
        flat = torch.cat([v.reshape(len(v), v.shape[1:].numel()) for v in fields.values()], 1)
        return [_unpack(row, fields) for row in flat.tolist()]

    def _numbers(self) -> dict[str, Tensor]:
        """Of both distributions at once, the target's places first: a small model's round is short."""
        tokens, probs = self.draft.tokens, self.draft.probs
        both = torch.cat([self.p_target, probs], 1)  # [batch, 2 k + 1, vocab]
        top = both.topk(min(ALTERNATIVES, both.shape[-1]))
        return {
            "drafts": probability_of(both, torch.cat([tokens, self.token.unsqueeze(1), tokens], 1)),  # [batch, 2 k + 1]
            "overlap": overlap(self.p_target[:, :-1], probs),
            "chance": self.chance,
            "uniform": self.uniform,
            "top": top.indices,  # [batch, 2 k + 1, several]
            "top_p": top.values,
        }


def _unpack(row: list[float], fields: dict[str, Tensor]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    at = 0
    for name, tensor in fields.items():
        shape = tensor.shape[1:]
        size = shape.numel()
        values[name] = _nest(row[at : at + size], list(shape))
        at += size
    if not isfinite(peak := values.pop("peak")):
        raise ValueError(
            f"the target's largest logit is {peak}: its arithmetic overflowed or its weights are broken. "
            "With float16, load the model in bfloat16 or float32"
        )
    if not values.pop("mass") > 0:
        raise ValueError("the logits processors left no token with a probability: together they mask them all")
    values["accepted"], values["token"] = int(values["accepted"]), int(values["token"])
    values["drafted"] = [int(token) for token in values["drafted"]]
    if "top" in values:
        k, drafts = len(values["drafted"]), values.pop("drafts")
        values["p_target"], values["p_draft"] = drafts[:k], drafts[k + 1 :]
        places = zip(values.pop("top"), values.pop("top_p"), strict=True)
        best = [[(int(token), p) for token, p in zip(*top, strict=True) if p > 0] for top in places]
        values["top_target"], values["top_draft"] = best[: k + 1], best[k + 1 :]
    return values


def _nest(flat: list[float], shape: list[int]) -> Any:
    if not shape:
        return flat[0]
    if len(shape) == 1:
        return flat
    step = len(flat) // shape[0] if shape[0] else 0
    return [_nest(flat[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


class Stopwatch:
    """Times of a round's phases. On a GPU by events, read after the round's synchronisation.

    The last phase ends on the host: it is what the clock says in all, less the others, so that no event
    behind the synchronisation has to be waited for.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda, self.began = device.type == "cuda", time.perf_counter()
        self.names: list[str] = []
        self.marks: list[Any] = [self._now()]

    def _now(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def lap(self, name: str) -> None:
        """The phase `name` ends here."""
        self.names.append(name)
        self.marks.append(self._now())

    def seconds(self) -> dict[str, float]:
        """Of each phase; to be called when the device has done all but the last one."""
        whole, total = time.perf_counter() - self.began, dict.fromkeys(self.names, 0.0)
        for name, begin, end in zip(self.names, self.marks, self.marks[1:], strict=False):
            if not self.cuda:
                total[name] += end - begin
            elif end is not self.marks[-1]:
                total[name] += begin.elapsed_time(end) / 1000
        if self.cuda:
            total[self.names[-1]] += max(0.0, whole - sum(total.values()))
        return total
