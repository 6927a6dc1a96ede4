"""Between host and device: there without waiting, back in one tensor a round; and where a round's time went."""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import accumulate
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .acceptance import overlap, probability_of

if TYPE_CHECKING:
    from .trace import Alternatives, Detail


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
class Verification:
    """What verifying a row's draft showed, as Python numbers; the fields mean what those of `trace.Round` do."""

    drafted: list[int]
    accepted: int  # of a tree the last accepted node plus 1
    token: int
    p_target: list[float] = field(default_factory=list)
    p_draft: list[float] = field(default_factory=list)
    overlap: list[float] = field(default_factory=list)
    chance: list[float] = field(default_factory=list)
    uniform: list[float] = field(default_factory=list)
    top_target: list[Alternatives] = field(default_factory=list)
    top_draft: list[Alternatives] = field(default_factory=list)
    full_target: list[list[float]] = field(default_factory=list)
    full_draft: list[list[float]] = field(default_factory=list)

    def select(self, tokens: Sequence[int]) -> Verification:
        """Of the drafted tokens only these, in this order."""
        if list(tokens) == list(range(len(self.drafted))):
            return self
        made = copy(self)
        for name in ("drafted", "p_target", "p_draft", "overlap", "chance", "uniform", "top_draft", "full_draft"):
            values = getattr(self, name)
            setattr(made, name, [values[i] for i in tokens] if values else [])
        for name in ("top_target", "full_target"):
            values = getattr(self, name)
            setattr(made, name, [values[0], *(values[i + 1] for i in tokens)] if values else [])
        return made


@dataclass
class Outcome:
    """What the device decided in a round; all tensors still on the device."""

    drafted: Tensor  # [batch, n]
    p_draft: Tensor  # [batch, n, vocab]
    p_target: Tensor  # [batch, n + 1, vocab]
    chance: Tensor  # [batch, n]
    uniform: Tensor  # [batch, n]
    accepted: Tensor  # [batch]
    token: Tensor  # [batch]
    mass: Tensor  # [batch], of the last token's distribution: NaN where no token was left
    logits: Tensor  # [batch, n + 1, vocab], the target's own, for the message when that happened
    parents: Sequence[int] | None = None  # [n], of a draft that is a tree

    def to_host(self, detail: Detail) -> list[Verification]:
        """Each row's part. The round's only synchronisation.

        Raises:
            ValueError: the target's logits are not numbers, or leave no token with a probability.
        """
        tensors = {"mass": self.mass, "accepted": self.accepted, "token": self.token, "drafted": self.drafted}
        if detail != "off":
            tensors |= self._numbers()
        if detail == "full":
            tensors |= {"full_target": self.p_target, "full_draft": self.p_draft}
        # Side by side they become float64 (float32 on mps), which holds a token id exactly.
        flat = torch.cat([each.flatten(1) if each.ndim > 1 else each.unsqueeze(1) for each in tensors.values()], 1)
        rows = flat.tolist()
        if not all(row[0] > 0 for row in rows):
            raise ValueError(self._why())
        ends = list(accumulate(prod(each.shape[1:]) for each in tensors.values()))
        places = {name: slice(begin, end) for name, begin, end in zip(tensors, [0, *ends], ends, strict=False)}
        return [self._of_row({name: row[place] for name, place in places.items()}) for row in rows]

    def _of_row(self, found: dict[str, list[float]]) -> Verification:
        """A row's numbers, in a flat list for each field -> a record"""
        made = Verification(list(map(int, found["drafted"])), int(found["accepted"][0]), int(found["token"][0]))
        if "overlap" in found:
            made.p_target, made.p_draft, made.overlap = found["p_target"], found["p_draft"], found["overlap"]
            made.chance, made.uniform = found["chance"], found["uniform"]
            made.top_target = _alternatives(found["top_target"], found["top_target_p"], self.several)
            made.top_draft = _alternatives(found["top_draft"], found["top_draft_p"], self.several)
        if "full_target" in found:
            vocab = self.p_target.shape[-1]
            made.full_target, made.full_draft = _rows(found["full_target"], vocab), _rows(found["full_draft"], vocab)
        return made

    @property
    def several(self) -> int:
        return min(ALTERNATIVES, self.p_target.shape[-1])

    def _why(self) -> str:
        """Why no token was left: the target's arithmetic, or processors that masked them all."""
        if isfinite(peak := self.logits.amax().item()):
            return "the logits processors left no token with a probability: together they mask them all"
        return (
            f"the target's largest logit is {peak}: its arithmetic overflowed or its weights are broken. "
            "With float16, load the model in bfloat16 or float32"
        )

    def _numbers(self) -> dict[str, Tensor]:
        """What a trace records of both distributions."""
        tokens, p_draft = self.drafted, self.p_draft
        p_target = self.p_target[:, :-1]  # [batch, n, vocab], where each token was drafted
        if self.parents is not None:
            p_target = self.p_target.index_select(1, send([parent + 1 for parent in self.parents], tokens.device))
        best_target, best_draft = self.p_target.topk(self.several), p_draft.topk(self.several)
        return {
            "p_target": probability_of(p_target, tokens),  # [batch, n]
            "p_draft": probability_of(p_draft, tokens),
            "overlap": overlap(p_target, p_draft),
            "chance": self.chance,
            "uniform": self.uniform,
            "top_target": best_target.indices,  # [batch, n + 1, several]
            "top_target_p": best_target.values,
            "top_draft": best_draft.indices,  # [batch, n, several]
            "top_draft_p": best_draft.values,
        }


def _rows(values: list[float], width: int) -> list[list[float]]:
    return [values[i : i + width] for i in range(0, len(values), width)]


def _alternatives(tokens: list[float], probs: list[float], several: int) -> list[Alternatives]:
    """The most probable tokens at each position: [n * several] twice -> [n] of pairs"""
    pairs = zip(_rows(tokens, several), _rows(probs, several), strict=True)
    return [[(int(token), p) for token, p in zip(*each, strict=True) if p > 0] for each in pairs]


class PhaseTimer:
    """Times a round's phases. On a GPU by events, read after the round's synchronisation.

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

    def end(self, name: str) -> None:
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
