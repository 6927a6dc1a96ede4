"""How fast every widget answers: `python -m specdec_lite.viz.latency` moves each control and prints the times.

Timed is what the kernel does for one move: the control's callback, the new figure data and the readout.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch

from ..pocket.recorded import load_recorded
from ..teaching.museum import MUSEUM, alarms
from . import (
    AcceptanceExplorer,
    CacheStepper,
    KExplorer,
    MuseumExplorer,
    NextTokenExplorer,
    ResidualExplorer,
    RooflineExplorer,
    SpeedupMap,
)

MOVES = 12  # of each control
WANTED = 0.1  # seconds


def spelled(tokens: list[int]) -> str:
    return " ".join(map(str, tokens))


def widgets() -> dict[str, Callable[[], Any]]:
    """A maker for every widget of the course."""
    runs = {each.title: (each.runs[4], spelled) for each in load_recorded()}
    logits = torch.randn(2048, generator=torch.Generator().manual_seed(0))
    readings = [alarms.read(each, each.name) for each in MUSEUM[:3]]
    return {
        "KExplorer": KExplorer,
        "RooflineExplorer": RooflineExplorer,
        "NextTokenExplorer": lambda: NextTokenExplorer({"somewhere": 3 * logits}, spelled),
        "CacheStepper": lambda: CacheStepper(runs),
        "ResidualExplorer": ResidualExplorer,
        "AcceptanceExplorer": AcceptanceExplorer,
        "SpeedupMap": SpeedupMap,
        "MuseumExplorer": lambda: MuseumExplorer(readings, alarms.wanted()),
    }


def controls(box: Any) -> Iterator[Any]:
    """The sliders, choices, switches and buttons inside, however deep."""
    yield from (each for child in getattr(box, "children", ()) for each in controls(child))
    if any(hasattr(box, name) for name in ("max", "options", "click")) or isinstance(getattr(box, "value", None), bool):
        yield box


def moves(control: Any) -> Iterator[Callable[[], None]]:
    """Ways to move a control, one after another."""
    for i in range(MOVES):
        if hasattr(control, "click"):
            yield control.click
        elif hasattr(control, "options"):
            chosen = control.options[i % len(control.options)]
            yield lambda chosen=chosen: setattr(control, "value", chosen[1] if isinstance(chosen, tuple) else chosen)
        elif hasattr(control, "max"):
            share = (i * 5 % MOVES) / (MOVES - 1)
            value = type(control.value)(control.min + share * (control.max - control.min))
            yield lambda value=value: setattr(control, "value", value)
        else:
            yield lambda: setattr(control, "value", not control.value)


def latencies(widget: Any) -> list[float]:
    """Seconds of every move of every control."""
    times = []
    for control in controls(widget.live):
        for move in moves(control):
            began = time.perf_counter()
            move()
            times.append(time.perf_counter() - began)
    return times


def main() -> None:
    print(f"{'milliseconds a move':22}{'moves':>7}{'median':>9}{'slowest':>9}")
    for name, make in widgets().items():
        times = latencies(make())
        late = "  too slow" if median(times) > WANTED else ""
        print(f"{name:22}{len(times):7}{1000 * median(times):9.1f}{1000 * max(times):9.1f}{late}")


if __name__ == "__main__":
    main()
