"""The pictures of acceptance: bars add up, lines say what the verdicts say, the widget moves and stays quick."""

from __future__ import annotations

import json
import time
from html.parser import HTMLParser

import pytest

from specdec_lite import viz
from specdec_lite.theory.acceptance_counts import Verdicts, expected
from specdec_lite.viz.acceptance_explorer import AcceptanceExplorer
from specdec_lite.viz.figures import bundle

RUN = Verdicts(tokens=60, rounds=20, drafted=[20, 20, 18], judged=[20, 14, 9], accepted=[14, 9, 8], bonus=8)


@pytest.fixture(scope="module")
def explorer() -> AcceptanceExplorer:
    return AcceptanceExplorer()


def test_the_three_parts_of_a_bar_add_up_to_one_and_the_diamond_is_the_rate() -> None:
    figure = viz.verdicts_by_position(RUN)
    bars, rate = figure.data[:3], figure.data[3]
    for i in range(3):
        assert sum(bar.y[i] for bar in bars) == pytest.approx(1, abs=1e-4)
        assert bars[1].base[i] == pytest.approx(bars[0].y[i], abs=1e-4)
        assert rate.y[i] == pytest.approx(bars[0].y[i] / (bars[0].y[i] + bars[1].y[i]), abs=1e-4)
    assert bars[0].y[0] == 0.7
    assert rate.error_y.array[2] > rate.error_y.array[0] * 0.5
    assert "Position 3: 0.44 of the drafts accepted, 0.89 of the judged ones" in figure.layout.meta["alt"]


def test_a_position_that_nobody_judged_leaves_no_diamond() -> None:
    figure = viz.verdicts_by_position(Verdicts(2, 2, [2, 2], [2, 0], [0, 0], 0), sampled=False)
    assert figure.data[3].y[1] is None


def test_bars_differ_without_colour() -> None:
    shapes = {bar.marker.pattern.shape for bar in viz.verdicts_by_position(RUN).data[:3]}
    assert len(shapes) == 3


def test_lines_over_k_are_the_verdicts() -> None:
    by_k = {k: expected([[0.5] * 50], k) for k in (1, 2, 3)}
    figure = viz.metrics_by_k(by_k)
    judged, drafted, with_bonus, without = figure.data[:4]
    assert list(judged.y) == pytest.approx([0.5] * 3)
    assert drafted.y[0] > drafted.y[1] > drafted.y[2]
    assert all(one > other for one, other in zip(with_bonus.y, without.y, strict=True))
    assert len({line.marker.symbol for line in figure.data[:4]}) == 4
    assert "accepted over judged goes from 0.50 to 0.50" in figure.layout.meta["alt"]


def test_shares_show_mean_error_and_count() -> None:
    figure = viz.shares({"easy": [1.0, 0.8, 0.9], "hard": [0.0, 1.0]}, "chance")
    assert list(figure.data[1].x) == [0.9, 0.5]
    assert figure.data[1].error_x.array[1] == 1.0
    assert list(figure.layout.yaxis.ticktext) == ["easy (3)", "hard (2)"]
    assert bundle(figure)["text/plain"] == "easy 0.90 of 3; hard 0.50 of 2."


class Spans(HTMLParser):
    """The tokens of a page, each with what hovering tells."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.titles: list[str] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.titles += [value for name, value in attributes if name == "title" and value]

    def handle_data(self, data: str) -> None:
        self.words += data


def test_a_coloured_text_escapes_and_tells_each_chance() -> None:
    page = Spans(viz.chances_html(["<b>", '"\n', "x"], [0.95, 0.6, 0.0], prompt="a & b"))
    assert page.titles[0] == "'<b>': drafted and kept with chance 0.95"
    assert len(page.titles) == 3
    assert 'a & b<b>"⏎\nx' in page.words


# The widget


def test_the_explorer_moves_figure_readout_and_text(explorer: AcceptanceExplorer) -> None:
    explorer.move(temperature=1.0, k=4, text=1)
    before = explorer.text, list(explorer.plot.data[0].y), explorer.words.value, list(explorer.plot.data[4].y)
    explorer.move(temperature=0.0, k=2, text=2)
    after = explorer.text, list(explorer.plot.data[0].y), explorer.words.value, list(explorer.plot.data[4].y)
    assert all(one != other for one, other in zip(before, after, strict=True))
    assert explorer.text.startswith("Greedy, K = 2: accepted over judged")
    assert explorer.controls["k"].value == 2
    assert explorer.controls["temperature"].value == 0.0
    assert "Greedy, K = 2" in explorer.readout.value


def test_a_hand_on_a_slider_does_the_same_as_code(explorer: AcceptanceExplorer) -> None:
    explorer.controls["k"].value = 7
    explorer.controls["temperature"].value = 0.5
    assert explorer.text.startswith("Temperature 0.5, K = 7")
    assert len(explorer.plot.data[0].y) == 7


def test_what_is_live_is_the_static_figure(explorer: AcceptanceExplorer) -> None:
    for temperature, k in ((2.0, 8), (0.25, 1), (1.0, 4)):
        explorer.move(temperature=temperature, k=k)
        for old, new in zip(explorer.plot.data, explorer.figure().data, strict=True):
            assert list(old.x) == list(new.x)
            assert list(old.y) == list(new.y)


def test_every_control_answers_within_a_tenth_of_a_second(explorer: AcceptanceExplorer) -> None:
    """Generous to a busy machine: the median of all moves, and no model anywhere."""
    took = []
    for temperature in explorer.places:
        for k in (1, 8):
            began = time.perf_counter()
            explorer.move(temperature=temperature, k=k)
            took.append(time.perf_counter() - began)
    assert sorted(took)[len(took) // 2] < 0.1


@pytest.mark.parametrize(
    "change", [dict(k=9), dict(k=0), dict(temperature=0.3), dict(text=0), dict(text=99), dict(draws=3)]
)
def test_what_is_not_there_is_refused_and_changes_nothing(explorer: AcceptanceExplorer, change: dict) -> None:
    before = dict(explorer.state)
    with pytest.raises(ValueError, match="must be|no control"):
        explorer.move(**change)
    assert explorer.state == before


def test_without_widgets_a_still_picture_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specdec_lite.viz.explorer.live_possible", lambda: False)
    made = AcceptanceExplorer(temperature=0.5, k=3)
    shown = made._repr_mimebundle_()
    assert "pip install" in shown["text/plain"]
    assert json.dumps(shown["application/vnd.plotly.v1+json"])
