"""The cache is allocated once, and a round leaves nothing behind but what it tells."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import PROMPT, pair

import specdec_lite as sd
from specdec_lite.bench.memory import Allocations, measure, weight_bytes
from specdec_lite.decoding import start


def run_of(new: int, k: int = 4) -> Any:
    target, draft = (sd.TransformersModel(each.module, engine="lean") for each in pair())
    return start(target, sd.ModelDrafter(draft), PROMPT, k=k, max_new_tokens=new, stop=sd.Stop(), trace="off")


def test_what_lives_and_what_passed_is_counted() -> None:
    kept = []
    with Allocations() as seen:
        kept.append(torch.zeros(1000))
        assert seen.alive == 4000
        kept.append(kept[0].view(10, 100))  # no new memory
        kept[0].add_(1)
        assert seen.alive == 4000
        passing = torch.ones(500, dtype=torch.float64)
        assert seen.alive == 8000
        del passing
        assert seen.alive == 4000
    assert seen.peak == 8000


def test_the_arena_is_allocated_once_and_is_as_large_as_its_shape() -> None:
    run = run_of(new=100)
    places = {id(kept): kept.data_ptr() for layer in run.cache.layers.values() for kept in layer}
    capacity, config = run.cache.capacity, run.target.module.config
    head_dim = config.hidden_size // config.num_attention_heads
    assert capacity == len(PROMPT) + 100 + 4 + 1
    assert run.cache.nbytes == 2 * 8 * config.num_hidden_layers * capacity * config.num_key_value_heads * head_dim
    while run.unfinished:
        run.round()
    assert {id(kept): kept.data_ptr() for layer in run.cache.layers.values() for kept in layer} == places


def test_a_round_needs_one_forwards_worth_however_long_the_text() -> None:
    """Same cache, early and late in the text: the peak beside it grows only with the slots that attention sees."""
    run = run_of(new=140)
    early = measure(run, rounds=3)
    while len(run.token_ids[0]) < 125:
        run.round()
    late = measure(run, rounds=3)
    assert early.cache == late.cache == run.cache.nbytes + run.session.cache.nbytes
    assert early.weights == sum(weight_bytes(each) for each in pair())
    assert late.round < 2 * early.round
    assert late.round < late.weights + late.cache


def test_a_round_that_copies_the_arena_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(new=100)
    honest = measure(run, rounds=3).round
    plain = type(run.cache).update

    def copying(self: Any, *args: Any) -> tuple[torch.Tensor, torch.Tensor]:
        plain(self, *args)
        keys, values = (kept.clone() for kept in self.layers[args[2]])
        return keys[:, :, : self.visible], values[:, :, : self.visible]

    monkeypatch.setattr(type(run.cache), "update", copying)
    copied = measure(run, rounds=3)
    assert copied.round > honest + run.cache.nbytes / run.target.layers / 2


def test_a_round_leaves_nothing_alive() -> None:
    run = run_of(new=100)
    run.round()
    with Allocations() as seen:
        run.round()
    small = 2000  # lengths and the numbers drawn ahead
    assert seen.alive < small < seen.peak


def test_it_says_what_it_found() -> None:
    found = measure(run_of(new=20), rounds=2)
    assert str(found).startswith("weights ") and "more during a round" in str(found)
    table = start(sd.TableModel(3), None, [1], k=0, max_new_tokens=3)
    assert measure(table).weights == 0
