"""Notebook 02's pictures and widget: heights are probabilities, the needle picks the library's token."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from html import escape

import pytest
import tiny
import torch
from fake_clock import Clock, Paced

import specdec_lite as sd
from specdec_lite import viz
from specdec_lite.bench import growth
from specdec_lite.bench.growth import Growth, step_times
from specdec_lite.viz import explorer as module
from specdec_lite.viz.explorer import MISSING, WIDGET
from specdec_lite.viz.next_token import Draw, next_token_parts, next_token_sentence
from specdec_lite.viz.next_token_explorer import TOP_KS, NextTokenExplorer
from specdec_lite.viz.pass_times import CONTEXTS

VOCAB = 40
LOGITS = 2 * torch.randn(VOCAB, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def decode(tokens: list[int]) -> str:
    return "".join(f" <{token}>" for token in tokens)


def drawn(uniform: float = 0.5, **sampling: float) -> Draw:
    return Draw(LOGITS, sd.Sampling(**sampling), uniform)


def trace(parts: dict, name: str) -> dict:
    (found,) = [each for each in parts["data"] if each["name"].startswith(name)]
    return found


@pytest.mark.parametrize("sampling", [{}, dict(temperature=0.4), dict(top_k=3), dict(top_p=0.5), dict(temperature=0.0)])
def test_bars_and_pieces_are_the_distribution(sampling: dict) -> None:
    for uniform in (0.0, 0.25, 0.5, 0.999):
        draw = drawn(uniform, **sampling)
        parts = next_token_parts(draw, decode)
        bars, pieces = trace(parts, "probability"), trace(parts, "all tokens")
        assert sum(bars["x"]) == pytest.approx(1, abs=1e-4)
        assert bars["x"][:10] == pytest.approx(draw.probs[draw.largest].tolist(), abs=1e-6)
        assert sum(pieces["x"]) == pytest.approx(1, abs=1e-4)
        for start, width, following in zip(pieces["base"], pieces["x"], pieces["base"][1:], strict=False):
            assert start + width == pytest.approx(following, abs=1e-5)  # end to end
        start, end = draw.piece(draw.token)
        assert start <= uniform < end and draw.probs[draw.token] > 0
        ticks = parts["layout"]["yaxis"]["ticktext"]
        assert sum(each.startswith("▶ ") for each in ticks) == 1
        cut = [each for each in ticks if each.startswith("✗ ")]
        assert len(cut) == sum(height < 1e-9 for height in bars["x"])


def test_a_token_that_shares_a_bar_is_marked_there() -> None:
    token = int(LOGITS.argsort()[5])
    start, end = drawn().piece(token)
    parts = next_token_parts(drawn((start + end) / 2), decode)
    assert parts["layout"]["yaxis"]["ticktext"][-1] == "▶ 30\u00a0others"


def test_the_picture_is_plain_json_with_a_sentence_and_stable_names() -> None:
    parts = next_token_parts(drawn(top_k=5), decode)
    assert json.loads(json.dumps(parts)) == parts
    names = [each["uid"] for each in parts["data"]]
    assert len(set(names)) == len(names) and all(name.replace("-", "").isalnum() for name in names)
    figure = viz.next_token(drawn(top_k=5), decode)
    assert figure.layout.meta["alt"] == next_token_sentence(drawn(top_k=5), decode)
    assert "5 tokens can be drawn" in figure.layout.meta["alt"]
    assert "<" not in "".join(parts["layout"]["yaxis"]["ticktext"])  # plotly takes it for a tag


def test_a_fair_die_has_its_faces() -> None:
    assert Draw(torch.zeros(6), sd.Sampling(), 0.5).faces == pytest.approx(6)
    assert drawn(temperature=0.0).faces == 1
    assert "1 token can be drawn" in next_token_sentence(drawn(temperature=0.0), decode)


# The widget


@pytest.fixture
def explorer() -> NextTokenExplorer:
    return NextTokenExplorer({"here": LOGITS, "there": -LOGITS}, decode)


def same_data(explorer: NextTokenExplorer) -> bool:
    fresh = explorer.figure()
    return all(
        list(getattr(old, name) if getattr(old, name) is not None else ())
        == list(getattr(new, name) if getattr(new, name) is not None else ())
        for old, new in zip(explorer.plot.data, fresh.data, strict=True)
        for name in ("x", "y")
    ) and list(explorer.plot.layout.yaxis.ticktext) == list(fresh.layout.yaxis.ticktext)


def test_every_control_moves_figure_and_readout(explorer: NextTokenExplorer) -> None:
    seen = {explorer.text}
    for name, value in (("uniform", 0.9), ("temperature", 0.3), ("top_k", 5), ("top_p", 0.6), ("place", "there")):
        explorer.controls[name].value = value  # as a hand does
        assert explorer.text not in seen
        seen.add(explorer.text)
        assert escape(explorer.text.split("\n")[1]) in explorer.readout.value
        assert same_data(explorer)


def test_code_moves_the_controls(explorer: NextTokenExplorer) -> None:
    explorer.move(place="there", temperature=0.0, top_k=20, top_p=0.5, uniform=0.123)
    assert {name: control.value for name, control in explorer.controls.items()} == explorer.state
    assert same_data(explorer)
    assert explorer.draw.token == int((-LOGITS).argmax())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (dict(place="nowhere"), "place must be one of"),
        (dict(top_k=4), "top_k must be one of"),
        (dict(uniform=1.0), "below 1"),
        (dict(temperature=-1.0), "temperature must be 0"),
        (dict(top_p=0.0), "top_p must lie above 0"),
        (dict(heat=1.0), "no control"),
    ],
)
def test_a_value_that_is_not_there_is_refused_and_changes_nothing(
    explorer: NextTokenExplorer, change: dict, told: str
) -> None:
    before = explorer.text
    with pytest.raises(ValueError, match=told):
        explorer.move(**change)
    assert explorer.text == before


def test_no_place_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one place"):
        NextTokenExplorer({}, decode)


def test_a_move_takes_less_than_a_tenth_of_a_second() -> None:
    large = NextTokenExplorer({"here": torch.randn(2048)}, decode)
    moves = []
    for i in range(9):
        began = time.process_time()  # the machine may be busy with other tests
        large.controls["uniform"].value = i / 10
        large.controls["top_k"].value = TOP_KS[i]
        moves.append((time.process_time() - began) / 2)
    assert sorted(moves)[len(moves) // 2] < 0.1, moves


def test_with_and_without_widgets(monkeypatch: pytest.MonkeyPatch, explorer: NextTokenExplorer) -> None:
    content = explorer._repr_mimebundle_()
    assert content["text/plain"] == explorer.text and content[WIDGET]["model_id"] == explorer.live.model_id
    monkeypatch.setattr(module, "live_possible", lambda: False)
    still = NextTokenExplorer({"here": LOGITS}, decode)
    still.move(top_k=3)
    content = still._repr_mimebundle_()
    assert set(content) == {"application/vnd.plotly.v1+json", "text/plain"}
    assert content["text/plain"] == f"{still.text}\n{MISSING}"


# What grows


def test_steps_are_timed_at_every_length_and_leave_the_model_as_it_was() -> None:
    model = sd.TransformersModel(tiny.llama(), tiny.tokenizer())
    times = step_times(model, (2, 5, 9), rounds=2)
    assert list(times.cached) == list(times.whole) == [2, 5, 9]
    assert all(each > 0 for each in [*times.cached.values(), *times.whole.values()])
    for lengths in ((1, 5), (2, 10**6)):
        with pytest.raises(ValueError, match="lengths must lie between"):
            step_times(model, lengths)


def test_the_steps_that_are_timed_feed_what_they_say() -> None:
    table, fed = sd.models.TableModel(3, 20), []
    plain: Callable = table.forward
    table.forward = lambda tokens, cache, last_only=False: (
        fed.append((cache.lengths[0], tokens.shape[1])), plain(tokens, cache, last_only)
    )[1]  # fmt: skip
    step_times(table, (6,), rounds=1)
    assert set(fed) == {(0, 5), (5, 1), (0, 6)}  # the cache filled, a cached step, a whole one


def test_steps_are_timed_warm_and_their_middle_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, growth)
    model = Paced(clock, "", lambda batch, n: float(n))
    for rounds, clock.slow in ((1, {0}), (3, {0, 2})):
        clock.counts.clear()
        made = step_times(model, (6,), rounds)
        assert (made.cached, made.whole) == ({6: 1.0}, {6: 6.0})


def test_growth_is_drawn_in_milliseconds_and_told() -> None:
    figure = viz.step_growth(Growth({16: 0.002, 64: 0.003}, {16: 0.004, 64: 0.016}))
    assert [list(each.y) for each in figure.data] == [[4, 16], [2, 3]]
    assert "64 tokens took 3.0 ms with a cache and 16.0 ms without" in figure.layout.meta["alt"]
    assert len({(each.line.dash, each.marker.symbol) for each in figure.data}) == 2


def test_the_cache_is_drawn_beside_the_weights() -> None:
    figure = viz.cache_growth(131_072, 16_060_522_496)
    *lines, weights = figure.data
    assert list(lines[0].y) == pytest.approx([n * 131_072 / 1e9 for n in CONTEXTS], abs=1e-3)
    assert list(lines[2].y) == pytest.approx([16 * n * 131_072 / 1e9 for n in CONTEXTS], abs=1e-3)
    assert list(weights.y) == [16.0605, 16.0605]
    assert len({(each.line.dash, each.marker.symbol) for each in lines}) == 4
    assert "64 texts need as much as the weights at 1,914 tokens each" in figure.layout.meta["alt"]
