"""The area picture and its widget: heights add up, a move reaches figure and readout, and nothing needs a browser."""

from __future__ import annotations

import json
import time
from html import escape

import pytest
import torch

from specdec_lite import viz
from specdec_lite.theory.formulas import total_variation
from specdec_lite.viz import explorer as module
from specdec_lite.viz.explorer import MISSING, WIDGET
from specdec_lite.viz.overlap import overlap_parts, overlap_sentence
from specdec_lite.viz.residual import DRAWS, OWN, SHAPES, ResidualExplorer

NAMES, TARGET, DRAFT = ("sun", "rain", "mist"), (6 / 12, 4 / 12, 2 / 12), (3 / 12, 3 / 12, 6 / 12)


def heights(parts: dict, name: str) -> list[float]:
    (trace,) = [each for each in parts["data"] if each["name"].startswith(name)]
    return [0.0 if each is None else each for each in trace["y"]]


def test_the_areas_are_those_of_the_theorem() -> None:
    parts = overlap_parts(TARGET, DRAFT, NAMES)
    kept, residual, rejected = (heights(parts, name) for name in ("drafted and kept", "residual", "rejected"))
    assert kept == pytest.approx([1 / 4, 1 / 4, 1 / 6], abs=1e-6)
    assert residual == pytest.approx([1 / 4, 1 / 12, 0], abs=1e-6)
    assert rejected == pytest.approx([0, 0, 1 / 3], abs=1e-6)
    written = [a + b for a, b in zip(heights(parts, "kept"), heights(parts, "corrected"), strict=True)]
    assert written == pytest.approx(list(TARGET), abs=1e-5)


def test_another_correction_misses_the_level() -> None:
    parts = overlap_parts(TARGET, DRAFT, NAMES, correction=TARGET)
    written = [a + b for a, b in zip(heights(parts, "kept"), heights(parts, "corrected"), strict=True)]
    assert written == pytest.approx([5 / 12, 13 / 36, 8 / 36], abs=1e-5)


def test_parts_are_told_apart_without_colour() -> None:
    bars = [each for each in overlap_parts(TARGET, DRAFT, NAMES)["data"] if each["type"] == "bar"][:3]
    assert len({each["marker"]["pattern"]["shape"] for each in bars}) == 3
    levels = [each for each in overlap_parts(TARGET, DRAFT, NAMES)["data"] if "line, " in each["name"]]
    lines = [each for each in overlap_parts(TARGET, DRAFT, NAMES)["data"] if each.get("mode") == "lines"]
    assert not levels
    assert {"dash" in each["line"] for each in lines} == {True, False}


def test_the_picture_is_plain_json_with_a_sentence_and_stable_names() -> None:
    parts = overlap_parts(TARGET, DRAFT, NAMES, counts=[1, 2, 3])
    assert json.loads(json.dumps(parts)) == parts
    names = [trace["uid"] for trace in parts["data"]]
    assert len(set(names)) == len(names)
    assert all(name.replace("-", "").isalnum() for name in names)
    assert heights(parts, "share of the draws") == pytest.approx([1 / 6, 2 / 6, 3 / 6], abs=1e-5)
    figure = viz.overlap_picture(TARGET, DRAFT, NAMES)
    assert figure.layout.meta["alt"] == overlap_sentence(TARGET, DRAFT, NAMES)
    assert "residual: sun 0.75, rain 0.25." in figure.layout.meta["alt"]


def test_equal_distributions_have_nothing_to_correct() -> None:
    parts = overlap_parts(TARGET, TARGET, NAMES)
    assert sum(heights(parts, "corrected")) == 0
    assert "nothing is ever rejected" in parts["layout"]["meta"]["alt"]


# The widget


def same_data(explorer: ResidualExplorer) -> bool:
    fresh = explorer.figure()
    return all(
        list(getattr(old, name) or ()) == list(getattr(new, name) or ())
        for old, new in zip(explorer.plot.data, fresh.data, strict=True)
        for name in ("y", "base", "text")
        if name in new
    ) and [a.text for a in explorer.plot.layout.annotations] == [a.text for a in fresh.layout.annotations]


def test_every_control_moves_figure_and_readout() -> None:
    explorer = ResidualExplorer()
    seen = {explorer.text}
    for move in (
        lambda: setattr(explorer.controls["draws"], "value", 1000),
        lambda: setattr(explorer.controls["temperature"], "value", 0.5),
        lambda: setattr(explorer.controls["top_k"], "value", 2),
        lambda: setattr(explorer.controls["rule"], "value", "target"),
        lambda: setattr(explorer.scores["draft"][3], "value", 3.0),
        lambda: setattr(explorer.scores["target"][0], "value", -1.0),
        lambda: setattr(explorer.shape, "value", "an undecided draft"),
    ):
        move()  # as a hand does
        assert explorer.text not in seen
        seen.add(explorer.text)
        assert escape(explorer.text.split("\n")[0]) in explorer.readout.value
        assert same_data(explorer)
    assert [each.value for each in explorer.scores["draft"]] == [0.0] * 5  # the shape moved the sliders


def test_code_moves_the_controls() -> None:
    explorer = ResidualExplorer()
    explorer.move(shape="opposites", draws=300, rule="target", top_k=3, temperature=1.5)
    assert explorer.controls["draws"].value == 300
    assert explorer.controls["rule"].value == "target"
    assert [each.value for each in explorer.scores["target"]] == list(SHAPES["opposites"][0])
    assert same_data(explorer)
    assert sum(explorer.counts()) == 300


@pytest.mark.parametrize("shape", SHAPES)
def test_the_readout_tells_the_truth(shape: str) -> None:
    explorer = ResidualExplorer(shape)
    apart = total_variation(explorer.p_target, explorer.p_draft).item()
    assert explorer.text.startswith(f"Overlap {1 - apart:.3f} = 1 - total variation {apart:.3f}")
    assert "is exactly the target's" in explorer.text
    explorer.move(draws=DRAWS[-1])
    counts = torch.tensor(explorer.counts()).double()
    assert counts.sum() == DRAWS[-1]
    assert ((counts / counts.sum() - explorer.p_target).abs() < 0.025).all()  # five standard deviations
    explorer.move(rule="target")
    biased = "off by a total variation" in explorer.text
    assert biased == (shape != "the same")


def test_the_shape_is_named_only_while_the_sliders_have_it() -> None:
    explorer = ResidualExplorer()
    explorer.scores["draft"][0].value = -2.0
    assert explorer.shape.value == OWN
    explorer.shape.value = "a fair imitation"  # the one it started from
    assert explorer.scores["draft"][0].value == SHAPES["a fair imitation"][1][0]
    explorer.shape.value = OWN
    assert same_data(explorer)


def test_play_draws_more_and_more() -> None:
    explorer = ResidualExplorer()
    for step, draws in enumerate(DRAWS):
        explorer.play.value = step
        assert explorer.controls["draws"].value == sum(explorer.counts()) == draws
    explorer.move(draws=100)
    assert DRAWS[explorer.play.value] == 100


def test_more_draws_continue_the_same_draws() -> None:
    explorer = ResidualExplorer()
    explorer.move(draws=100)
    first = explorer.written()
    explorer.move(draws=1000)
    assert torch.equal(explorer.written()[:100], first)


def test_temperature_zero_overlaps_wholly_or_not_at_all() -> None:
    explorer = ResidualExplorer("opposites")
    explorer.move(temperature=0.0)
    assert explorer.overlap == 0
    explorer.move(shape="the same")
    assert explorer.overlap == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (dict(shape="round"), "shape must be one of"),
        (dict(draws=7), "draws must be one of"),
        (dict(rule="none"), "rule must be one of"),
        (dict(top_k=0), "top_k must be one of 1 to 5"),
        (dict(target=(1.0,)), "5 scores"),
        (dict(temperature=-1.0), "temperature must be 0"),
        (dict(heat=1.0), "no control"),
    ],
)
def test_a_value_that_is_not_there_is_refused_and_changes_nothing(change: dict, told: str) -> None:
    explorer = ResidualExplorer()
    before = explorer.text
    with pytest.raises(ValueError, match=told):
        explorer.move(**change)
    assert explorer.text == before


def test_a_move_takes_less_than_a_tenth_of_a_second() -> None:
    explorer, moves = ResidualExplorer(), []
    explorer.move(draws=DRAWS[-1])
    for score in (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0):
        began = time.process_time()  # the machine may be busy with other tests
        explorer.scores["draft"][0].value = score
        moves.append(time.process_time() - began)
    assert sorted(moves)[len(moves) // 2] < 0.1, moves


def test_it_shows_its_readout_where_only_text_is_shown() -> None:
    explorer = ResidualExplorer()
    content = explorer._repr_mimebundle_()
    assert content["text/plain"] == explorer.text
    assert content[WIDGET]["model_id"] == explorer.live.model_id


def test_without_widgets_a_still_figure_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "live_possible", lambda: False)
    explorer = ResidualExplorer()
    explorer.move(draws=100)
    content = explorer._repr_mimebundle_()
    assert set(content) == {"application/vnd.plotly.v1+json", "text/plain"}
    assert content["text/plain"] == f"{explorer.text}\n{MISSING}"
    assert "After 100 draws" in explorer.text
