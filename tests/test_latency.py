"""The benchmark of the widgets reaches every one of them and every control. Times are printed, never asserted."""

from __future__ import annotations

import inspect

import pytest

from specdec_lite import viz
from specdec_lite.viz import latency


def test_every_widget_of_the_course_is_moved() -> None:
    exported = {name for name in viz.__all__ if inspect.isclass(getattr(viz, name))}
    assert exported - {"ChatBox"} == set(latency.widgets())  # whose button lets a model write, for seconds


@pytest.mark.parametrize("name", latency.widgets())
def test_every_move_reaches_a_control(name: str) -> None:
    widget = latency.widgets()[name]()
    found = list(latency.controls(widget.live))
    assert found
    before = [getattr(each, "value", None) for each in found]
    told = {str(widget.text)}
    for control in found:
        for move in latency.moves(control):
            move()
            told.add(str(widget.text))
    assert len(told) > 1, "no move changed the readout"
    assert [getattr(each, "value", None) for each in found] != before
    assert len(latency.latencies(latency.widgets()[name]())) == latency.MOVES * len(found)
