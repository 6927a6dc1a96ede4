"""What notebook 06 stands on: break-even, sweeps, batches, the map's widget, and a draft that learns while one looks.

No times are asserted, only what holds on every machine.
"""

from __future__ import annotations

import math
import re
import time
from functools import cache
from importlib import import_module

import pytest
import torch
from fake_clock import STUMBLE, Clock, Paced
from test_trace import made as round_made
from tiny import PROMPT, pair

import specdec_lite as sd
from specdec_lite import viz
from specdec_lite.bench import growth
from specdec_lite.bench import sweep as sweeping
from specdec_lite.bench.growth import batch_costs
from specdec_lite.bench.sweep import Sweep, _line, sweep
from specdec_lite.decoding import Decoded
from specdec_lite.theory.formulas import best_k, break_even, speedup
from specdec_lite.training.live import LiveDistillation, Progress
from specdec_lite.training.recipes import Shape
from specdec_lite.viz.speedup_map import ACCEPTANCES, COSTS, best_gains, gains

# Break-even


@pytest.mark.parametrize("k", [1, 2, 4, 16])
@pytest.mark.parametrize(("cost", "verify", "overhead"), [(0.1, 1.0, 0.0), (0.05, 1.2, 0.1), (0.4, 1.0, 0.0)])
def test_break_even_is_where_the_speed_up_is_one(k: int, cost: float, verify: float, overhead: float) -> None:
    a = break_even(k, cost, verify, overhead)
    assert speedup(a, k, cost, verify, overhead) == pytest.approx(1)
    if k == 1:
        assert a == pytest.approx(cost + verify + overhead - 1)


def test_an_overhead_is_shared_so_one_draft_may_need_more_than_three() -> None:
    """And the peak is found from a loop that drafts nothing, not from the first K that beats naive decoding."""
    needs = {k: break_even(k, 0.02, overhead=0.5) for k in (1, 2, 3, 8)}
    assert needs[1] == pytest.approx(0.52)
    assert needs[3] == pytest.approx(0.371, abs=5e-4) == min(needs.values())
    assert speedup(0.5, 1, 0.02, overhead=0.5) < 1 < best_k(0.5, 0.02, overhead=0.5)[1]


def test_where_nothing_suffices_break_even_is_infinite() -> None:
    assert break_even(4, 1.5) == math.inf
    assert break_even(4, 1.0) == 1.0


# Sweep and batch


@cache
def swept() -> Sweep:
    target, draft = pair(noise=0.3)
    return sweep(target, sd.ModelDrafter(draft), [PROMPT, PROMPT[:3]], ks=(1, 2, 4), repeats=2, max_new_tokens=20)


def test_a_sweep_measures_every_k() -> None:
    made = swept()
    assert made.ks == [1, 2, 4]
    for k in made.ks:
        assert 1 <= made.tokens_per_round(k) <= k + 1
        assert made.cost(k) > 0
        assert made.luck(k) >= 0
        assert made.predicted(k) > 0
    assert made.cost(0) == 1
    assert made.costs.draft >= 0
    assert made.costs.verify >= 0
    lines = made.table().splitlines()
    assert len(lines) == 2 + len(made.ks)
    assert len({len(line.rstrip()) for line in lines[1:]}) == 1  # columns stand under each other
    said = r"draft \d+\.\d{3} and verify \d+\.\d{3} a token, overhead -?\d+\.\d{3} a round"
    assert re.fullmatch(said, str(made.costs))


def test_the_acceptance_of_a_sweep_is_accepted_over_judged() -> None:
    made = swept()
    rounds = [each for k in made.ks for each in made.rounds[k]]
    assert made.acceptance.value == sum(r.accepted for r in rounds) / sum(r.judged for r in rounds)


def test_a_sweep_is_run_warm_and_in_turn_and_leaves_out_what_warmed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted runs of two rounds: a naive step takes a second, a round of k drafts 1 + k / 2. The first is cold."""
    clock = Clock(monkeypatch)

    def planted_run(k: int) -> Decoded:
        cold = not clock.counts[k]
        took = clock.work(k, 2 * (1 + k / 2)) / 2
        parts = {"draft": k / 4, "verify": took - k / 4, "rest": 0.0}
        rounds = [round_made(0 if cold else k, k, index=i, seconds=parts) for i in range(2)]
        return Decoded([], None, sd.Trace(rounds, k), took)

    monkeypatch.setattr(sweeping, "autoregressive", lambda *given, **how: planted_run(0))
    monkeypatch.setattr(sweeping, "speculative", lambda *given, k, **how: planted_run(k))
    made = sweep(*pair(), [PROMPT, PROMPT], ks=(1, 2, 4), repeats=1)
    assert made.timings.seconds["0"] == [[2.0, 2.0]]
    assert {k: len(rounds) for k, rounds in made.rounds.items()} == dict.fromkeys((0, 1, 2, 4), 4)
    assert made.acceptance.value == 1.0
    for k in (1, 2, 4):
        assert made.cost(k) == 1 + k / 2
        assert made.tokens_per_round(k) == k + 1
        assert made.by_the_clock(k).median == pytest.approx((k + 1) / (1 + k / 2))
    assert (made.costs.draft, made.costs.verify, made.costs.overhead) == pytest.approx((0.25, 0.25, 0.0))
    assert all(set(turn) == {0, 1, 2, 4} for turn in clock.turns(4))
    assert STUMBLE not in made.timings.seconds["0"][0]


def test_the_line_of_costs_is_the_nearest_one() -> None:
    assert _line([1, 2, 3], [1.5, 1.7, 1.9]) == (pytest.approx(0.2), pytest.approx(1.3))


def test_one_k_makes_no_line() -> None:
    target, draft = pair()
    with pytest.raises(ValueError, match="two values of k"):
        sweep(target, sd.ModelDrafter(draft), [PROMPT], ks=(2,))


def test_batches_are_timed_in_the_targets_own_pass() -> None:
    target, draft = pair()
    made = batch_costs(target, draft, batches=(1, 3), k=2, cached=8, rounds=2)
    assert [each.batch for each in made] == [1, 3]
    for each in made:
        assert min(each.naive, each.draft, each.verify) > 0
        assert each.speedup(0.5) == pytest.approx(1.75 / (2 * each.draft + each.verify))


def test_batches_are_timed_warm_and_their_middle_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, growth)
    target = Paced(clock, "target", lambda batch, n: 4.0 + batch * n)
    draft = Paced(clock, "draft", lambda batch, n: 1.0)
    for rounds, clock.slow in ((1, {0}), (3, {0, 2})):
        clock.counts.clear()
        one, many = batch_costs(target, draft, batches=(1, 4), k=2, cached=8, rounds=rounds)
        assert (one.naive, one.draft, one.verify) == (5.0, 1 / 5, 7 / 5)
        assert (many.naive, many.draft, many.verify) == (8.0, 1 / 8, 16 / 8)


# The map


def test_the_map_is_the_formula() -> None:
    for k in (1, 5):
        surface, i, j = gains(k, 0.05, 0.1), 7, 40
        assert surface.shape == (len(COSTS), len(ACCEPTANCES))
        expected = speedup(ACCEPTANCES[j], k, COSTS[i], 1 + k * 0.05, 0.1)
        assert surface[i, j] == pytest.approx(expected)
    best = best_k(ACCEPTANCES[40], COSTS[7], lambda k: 1 + k * 0.05, 0.1)[1]
    assert best_gains(0.05, 0.1)[7, 40] == pytest.approx(best)


def test_controls_move_map_dot_curve_and_readout_and_never_slowly() -> None:
    explorer = viz.SpeedupMap(0.8, 0.1, 0.0, 4, own=(0.81, 0.09, "mine"))
    before = explorer.text
    slowest = 0.0
    for control, value in {"acceptance": 0.5, "draft_cost": 0.3, "verify_cost": 0.1, "k": 9}.items():
        surface = explorer.plot.data[0].z
        began = time.perf_counter()
        explorer.controls[control].value = value
        slowest = max(slowest, time.perf_counter() - began)
        assert explorer.state[control] == value
        assert (explorer.plot.data[0].z != surface) == (control in ("verify_cost", "k"))
        assert explorer.text != before
        before = explorer.text
    assert explorer.plot.data[3].x == (0.5,)
    assert explorer.plot.data[5].x == (9,)
    assert explorer.plot.data[2].x == (0.81,)  # one's own pair stays where it is
    assert slowest < 5  # a model on every tick would take longer, on any machine
    explorer.controls["best_everywhere"].value = True
    assert "best K" in explorer.plot.layout.annotations[0].text


def test_the_readout_says_when_not_to_speculate() -> None:
    explorer = viz.SpeedupMap(0.2, 0.5, 0.0, 4)
    assert "No K helps here" in explorer.text
    assert explorer.best[1] < 1
    explorer.move(acceptance=1.0, draft_cost=0.6, verify_cost=0.3, k=16)
    assert "pays from" in explorer.text or "at no acceptance" in explorer.text


def test_the_map_has_a_sentence_and_fixed_names() -> None:
    one, other = (viz.SpeedupMap(own=(0.7, 0.1, "mine")).figure() for _ in range(2))
    assert one.to_json() == other.to_json()
    assert "times as fast as naive" in one.layout.meta["alt"]
    uids = [trace.uid for trace in one.data]
    assert len(set(uids)) == len(uids)
    assert all(uids)


@pytest.mark.parametrize("wrong", [dict(k=0), dict(acceptance=1.2), dict(draft_cost=-0.1), dict(speed=3)])
def test_the_map_refuses_what_no_slider_offers(wrong: dict[str, float]) -> None:
    explorer = viz.SpeedupMap()
    with pytest.raises(ValueError, match="must lie between|there is no control"):
        explorer.move(**wrong)


def test_without_widgets_the_map_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specdec_lite.viz.explorer.live_possible", lambda: False)
    shown = viz.SpeedupMap()._repr_mimebundle_()
    assert "application/vnd.plotly.v1+json" in shown
    assert "pip install" in shown["text/plain"]


# Curves, and a draft that learns


def test_curves_tell_what_they_show() -> None:
    figure = viz.curves({"a": ([1, 2], [1.0, 3.0])}, {"a": ([1, 2], [1.5, 2.0])}, x="K", y="speed", level=("naive", 1))
    assert [trace.mode for trace in figure.data] == ["lines+markers", "markers", "lines"]
    assert figure.data[0].line.color == figure.data[1].marker.line.color
    assert "a: 1.00 at 1, 3.00 at 2, highest 3.00 at 2." in figure.layout.meta["alt"]
    assert viz.curves({"a": ([1, 8], [1, 2])}, x="x", y="y", doubling=True).layout.xaxis.type == "log"


def teacher() -> sd.TransformersModel:
    return sd.TransformersModel(Shape(layers=2, width=16, heads=2).build(50, seed=0).eval())


def texts() -> list[list[int]]:
    return torch.randint(50, (12, 200), generator=torch.Generator().manual_seed(0)).tolist()


def test_a_draft_learns_and_the_teacher_is_left_alone() -> None:
    target = teacher()
    with torch.no_grad():  # a distribution that is worth learning
        target.module.model.norm.weight.mul_(20)
        target.module.model.layers[1].mlp.down_proj.weight.normal_()
    weights = {name: value.clone() for name, value in target.module.state_dict().items()}
    lesson = LiveDistillation(target, texts())
    points = list(lesson.run(seconds=1.0, looks=3))
    assert [each.seconds for each in points] == sorted(each.seconds for each in points)
    assert len(points) == 4
    assert points[0].seen == 0 < points[-1].seen
    assert points[-1].overlap > points[0].overlap
    assert all(torch.equal(value, weights[name]) for name, value in target.module.state_dict().items())
    assert lesson.model().vocab_size == target.vocab_size
    held = {tuple(row) for row in lesson.examination.tokens.tolist()}
    assert held
    assert not held & {tuple(row) for row in lesson.lessons.tokens.tolist()}


def test_too_little_text_or_time_is_refused() -> None:
    with pytest.raises(ValueError, match="too few to learn from"):
        LiveDistillation(teacher(), texts()[:2])
    with pytest.raises(ValueError, match="seconds must be above 0"):
        next(LiveDistillation(teacher(), texts()).run(seconds=0))


POINTS = [Progress(0.0, 0, 0.3), Progress(1.0, 100, 0.4), Progress(2.0, 200, 0.5)]


def test_watching_returns_every_point(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    assert viz.watch(iter(POINTS), 2.0, target=0.8) == POINTS
    bar, words = shown[0].children[0].children
    assert bar.value == 2.0
    assert "overlap 0.50, 0 seconds left" in words.value
    assert shown[0].children[1].data[0].y == (0.3, 0.4, 0.5)
    monkeypatch.setattr(import_module("specdec_lite.viz.curves"), "live_possible", lambda: False)
    assert viz.watch(iter(POINTS), 2.0) == POINTS
