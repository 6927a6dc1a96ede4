"""Between host and device: there without waiting, back in one tensor a round; and where a round's time went."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .acceptance import overlap, probability_of

if TYPE_CHECKING:
    from .trace import Detail


def send(values: list, device: torch.device) -> Tensor:
    """These whole numbers, or lists of them of one length, on the device."""
    return dispatch(torch.tensor(values, dtype=torch.long, device="cpu"), device)


def dispatch(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host, on the device. torch keeps its pinned memory until that was read."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


ALTERNATIVES = 3


@dataclass
class Outcome:
    """What the device decided in a round; all tensors still on the device."""

    drafted: Tensor  # [batch, k]
    p_draft: Tensor  # [batch, k, vocab]
    p_target: Tensor  # [batch, k + 1, vocab]
    chance: Tensor  # [batch, k]
    uniform: Tensor  # [batch, k]
    accepted: Tensor  # [batch]
    token: Tensor  # [batch]
    mass: Tensor  # [batch], of the last token's distribution: not a number where no token was left
    logits: Tensor  # [batch, k + 1, vocab], the target's own; looked at when that went wrong

    def to_host(self, detail: Detail) -> list[dict[str, Any]]:
        """For each row, the fields of a `trace.Round` that the device knows. The round's only synchronisation.

        Raises:
            ValueError: the target's logits are not numbers, or leave no token with a probability.
        """
        fields = {"mass": self.mass, "accepted": self.accepted, "token": self.token, "drafted": self.drafted}
        if detail != "off":
            fields |= self._numbers()
        if detail == "full":
            fields |= {"full_target": self.p_target, "full_draft": self.p_draft}
        # Side by side they become float64 (float32 on mps), which holds a token id exactly.
        flat = torch.cat([_flat(each) for each in fields.values()], 1).tolist()
        if not all(row[0] > 0 for row in flat):
            raise ValueError(self._why())
        shapes = {name: list(each.shape[1:]) for name, each in fields.items()}
        return [_unpack(row, shapes) for row in flat]

    def _why(self) -> str:
        """Why no token was left: numbers that are none come out of arithmetic, or processors masked them all."""
        if isfinite(peak := self.logits.amax().item()):
            return "the logits processors left no token with a probability: together they mask them all"
        return (
            f"the target's largest logit is {peak}: its arithmetic overflowed or its weights are broken. "
            "With float16, load the model in bfloat16 or float32"
        )

    def _numbers(self) -> dict[str, Tensor]:
        """What a trace tells of both distributions."""
        tokens, p_target, p_draft = self.drafted, self.p_target[:, :-1], self.p_draft
        several = min(ALTERNATIVES, p_draft.shape[-1])
        best_target, best_draft = self.p_target.topk(several), p_draft.topk(several)
        return {
            "p_target": probability_of(p_target, tokens),  # [batch, k]
            "p_draft": probability_of(p_draft, tokens),
            "overlap": overlap(p_target, p_draft),
            "chance": self.chance,
            "uniform": self.uniform,
            "top_target": best_target.indices,  # [batch, k + 1, several]
            "top_target_p": best_target.values,
            "top_draft": best_draft.indices,  # [batch, k, several]
            "top_draft_p": best_draft.values,
        }


def _flat(values: Tensor) -> Tensor:
    """[batch, ...] -> [batch, how many there are of a row]"""
    return values if values.ndim == 2 else values.unsqueeze(1) if values.ndim == 1 else values.flatten(1)


def _unpack(row: list[float], shapes: dict[str, list[int]]) -> dict[str, Any]:
    """A row of numbers back into fields. The first, its mass, has been looked at."""
    values: dict[str, Any] = {}
    at = 0
    for name, shape in shapes.items():
        size = prod(shape)
        values[name] = _nest(row[at : at + size], shape)
        at += size
    del values["mass"]
    values["accepted"], values["token"] = int(values["accepted"]), int(values["token"])
    values["drafted"] = [int(token) for token in values["drafted"]]
    for name in ("top_target", "top_draft"):
        if name in values:
            places = zip(values[name], values.pop(f"{name}_p"), strict=True)
            values[name] = [[(int(token), p) for token, p in zip(*top, strict=True) if p > 0] for top in places]
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
        self.stream = torch.cuda.current_stream(device) if self.cuda else None
        self.names: list[str] = []
        self.marks: list[Any] = [self._now()]

    def _now(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(self.stream)
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
