"""A clock that only planted work moves, so that a test of a measurement knows what it must say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor

from specdec_lite.bench import timing as measure

STUMBLE = 1000.0  # seconds that a slow call takes more


class Clock:
    """Work is queued, as on a GPU, and its time passes when somebody waits for it.

    The calls that `slow` numbers, counted for each kind of work, take `STUMBLE` seconds more: the first
    one is cold.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
        """Replaces the clock of `measure`, and its `idle` there and in the modules that imported it."""
        self.now = self.queued = 0.0
        self.slow = {0}
        self.calls: list[Hashable] = []
        self.counts: Counter[Hashable] = Counter()
        monkeypatch.setattr(measure, "time", self)
        for module in (measure, *modules):
            monkeypatch.setattr(module, "idle", lambda device: self.wait)

    def perf_counter(self) -> float:
        return self.now

    def wait(self) -> None:
        self.now, self.queued = self.now + self.queued, 0.0

    def work(self, what: Hashable, seconds: float = 1.0) -> float:
        """Queue it. -> the seconds it will take"""
        took = seconds + STUMBLE * (self.counts[what] in self.slow)
        self.calls.append(what)
        self.counts[what] += 1
        self.queued += took
        return took

    def turns(self, size: int) -> list[list[Hashable]]:
        """The calls, `size` of them at a time."""
        return [self.calls[i : i + size] for i in range(0, len(self.calls), size)]


class Paced:
    """A model of which there is only the time of a forward, by its batch and tokens a row."""

    context, vocab_size, device = None, 3, torch.device("cpu")

    def __init__(self, clock: Clock, name: str, seconds: Callable[[int, int], float]) -> None:
        self.clock, self.name, self.seconds = clock, name, seconds

    def new_cache(self, batch: int, capacity: int) -> SimpleNamespace:
        return SimpleNamespace(rewind=lambda tokens: None)

    def forward(self, tokens: Tensor, cache: object, last_only: bool = False) -> None:
        self.clock.work((self.name, *tokens.shape), self.seconds(*tokens.shape))
