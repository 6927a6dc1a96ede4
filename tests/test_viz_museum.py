"""The museum's pictures and widget: every exhibit has its place, a move reaches all parts, and no model runs on it."""

from __future__ import annotations

import json
import time

import pytest

from specdec_lite import viz
from specdec_lite.teaching.museum import MUSEUM
from specdec_lite.teaching.museum.alarms import Reading, wanted
from specdec_lite.viz import explorer as module
from specdec_lite.viz.explorer import MISSING
from specdec_lite.viz.museum import CLASSES, HIGHEST, effect_parts, effect_sentence, museum_parts, texts_of

WANTED = wanted()


def made_up() -> list[Reading]:
    """Readings of every class, without running anything."""
    shifted = {text: p / 2 for text, p in WANTED.items()} | {(1, 0, 1): 0.5}
    readings = []
    for exhibit in MUSEUM:
        numbers = {
            "enumeration": (0.5, 1.0, 1.0, 0.3),
            "dice": (1e-17, 1.0, 1.0, 1e-99),
            "twin": (1e-17, 0.6, 1.0, 0.3),
            None: (1e-17, 0.6, 0.6, 0.3),
        }[exhibit.caught_by]
        written = shifted if exhibit.caught_by == "enumeration" else dict(WANTED)
        thrown = {(1, 0, 1): 0.4, (2, 0): 0.6}
        off = 0.2 if exhibit.caught_by == "dice" else 0.01
        readings.append(Reading(exhibit.name, *numbers, written, thrown, off))
    return readings


def test_every_exhibit_has_a_row_and_stands_with_its_class() -> None:
    parts = museum_parts(made_up())
    bars = [each for each in parts["data"] if each["type"] == "bar"]
    assert [len(each["y"]) for each in bars] == [10, 2, 4]
    rows = [y for each in bars for y in each["y"]]
    assert rows == list(range(len(MUSEUM) - 1, -1, -1))
    labels = dict(zip(parts["layout"]["yaxis"]["tickvals"], parts["layout"]["yaxis"]["ticktext"], strict=True))
    assert all(exhibit.name in " ".join(labels.values()) for exhibit in MUSEUM)
    assert len(parts["layout"]["shapes"]) == 2


def test_classes_are_told_apart_without_colour() -> None:
    for aspect in ("mark", "symbol", "pattern", "ground", "colour"):
        assert len({getattr(each, aspect) for each in CLASSES.values()}) == 3
    patterns = [each["marker"]["pattern"]["shape"] for each in museum_parts(made_up())["data"] if each["type"] == "bar"]
    assert len(set(patterns)) == 3


def test_what_only_dice_see_is_a_star_and_not_a_zero() -> None:
    (star,) = [each for each in museum_parts(made_up())["data"] if each["name"] == "seen by dice only"]
    assert star["x"] == [0.2]
    bars = next(each for each in museum_parts(made_up())["data"] if each["type"] == "bar")
    assert bars["text"].count("") == 1
    assert bars["text"].count("0.500") == 9


def test_pictures_are_plain_json_with_a_sentence_and_stable_names() -> None:
    readings = made_up()
    texts = texts_of(WANTED, [each.written for each in readings])
    for parts in (museum_parts(readings), effect_parts(readings[1], WANTED, texts)):
        assert json.loads(json.dumps(parts)) == parts
        names = [trace["uid"] for trace in parts["data"]]
        assert len(set(names)) == len(names)
        assert all(name.replace("-", "").isalnum() for name in names)
        assert len(parts["layout"]["meta"]["alt"].split()) > 5
    assert "resample from the target 0.500 and 1.00" in viz.museum_sentence(readings)


def test_texts_that_are_never_wanted_come_last() -> None:
    readings = made_up()
    texts = texts_of(WANTED, [each.written for each in readings])
    assert texts[-1] == (1, 0, 1)
    assert set(texts[:-1]) == set(WANTED)
    assert [WANTED[text] for text in texts[:-1]] == sorted(WANTED.values(), reverse=True)
    assert "texts that the target never writes: 1." in effect_sentence(readings[1], WANTED)
    assert "all 13 texts have the target's probability" in effect_sentence(readings[0], WANTED)
    assert max(WANTED.values()) < HIGHEST


def test_a_move_reaches_figure_readout_and_list_in_less_than_a_tenth_of_a_second() -> None:
    explorer = viz.MuseumExplorer(made_up(), WANTED)
    before = list(explorer.plot.data[0].y), explorer.readout.value
    began = time.perf_counter()
    explorer.move(exhibit="resample from the target")
    assert time.perf_counter() - began < 0.1
    assert explorer.controls["exhibit"].value == explorer.state["exhibit"]
    assert list(explorer.plot.data[0].y) != before[0]
    assert explorer.readout.value != before[1]
    assert "<b>resample from the target</b>: ✗ biased" in explorer.plot.layout.annotations[0].text
    explorer.controls["exhibit"].value = "last draft token not fed"  # a hand
    assert explorer.state["exhibit"] == "last draft token not fed"
    assert "Rings: twin." in explorer.text
    assert explorer.plot.data[0].marker.pattern.shape == CLASSES["exact but slow"].pattern


def test_an_exhibit_that_only_dice_tell_shows_what_was_thrown() -> None:
    name = "one uniform for every position"
    explorer = viz.MuseumExplorer(made_up(), WANTED)
    explorer.move(exhibit=name)
    assert "(Drawn with its own dice.)" in explorer.text
    assert "is written 0.400 of the time" in explorer.text


def test_what_is_not_there_is_refused_and_without_widgets_a_still_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="exhibit must be one of"):
        viz.MuseumExplorer(made_up(), WANTED).move(exhibit="the Mona Lisa")
    monkeypatch.setattr(module, "live_possible", lambda: False)
    told = viz.MuseumExplorer(made_up(), WANTED)._repr_mimebundle_()
    assert "application/vnd.plotly.v1+json" in told
    assert MISSING in told["text/plain"]
