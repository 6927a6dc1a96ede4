"""A widget that steps through a recorded run: what lies in both caches after each step of each round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..trace import Trace
from .cache_steps import PHASES, Decode, Snapshot, cache_parts, cache_steps, snapshots, step_sentence
from .explorer import Explorer

if TYPE_CHECKING:
    import plotly.graph_objects as go


class CacheStepper(Explorer):
    """Buttons back and next, a round, a step, and a choice of runs.

    What a hand can move, code can too: `stepper.move(round=3, step="judge")`, `stepper.next()`,
    `stepper.back()`. `stepper.text` is what the readout says.

    Args:
        runs: name -> (trace of one prompt, decode), the first is shown.

    Raises:
        ValueError: no run, or one without rounds.
    """

    def __init__(self, runs: Mapping[str, tuple[Trace, Decode]]) -> None:
        if not runs or not all(trace.rounds for trace, _ in runs.values()):
            raise ValueError("needs at least one run, each with at least one round")
        self.runs = {name: (snapshots(trace), decode, trace.k) for name, (trace, decode) in runs.items()}
        self.state = dict(run=next(iter(runs)), round=1, step=PHASES[0])
        self.open()

    @property
    def rounds(self) -> int:
        """Rounds of the run that is shown."""
        return len(self.runs[self.state["run"]][0]) // len(PHASES)

    @property
    def at(self) -> Snapshot:
        """What is shown."""
        return self.runs[self.state["run"]][0][self._place()]

    @property
    def text(self) -> str:
        """The readout."""
        return step_sentence(self.at, self.runs[self.state["run"]][1], self.rounds)

    def _place(self) -> int:
        return (self.state["round"] - 1) * len(PHASES) + PHASES.index(self.state["step"])

    def move(self, **changes: Any) -> None:
        """Set any of run (a name), round (from 1) and step; another run begins at its first round.

        Raises:
            ValueError: a name or a value that is not there.
        """
        if changes.get("run", self.state["run"]) != self.state["run"]:
            changes = dict(round=1, step=PHASES[0]) | changes
        super().move(**changes)

    def choices(self, state: Mapping[str, Any]) -> dict[str, Any]:
        found = self.runs.get(state["run"])
        rounds = len(found[0]) // len(PHASES) if found else 0
        return dict(run=list(self.runs), round=range(1, rounds + 1), step=list(PHASES))

    def next(self) -> None:
        """One step on; at the end it stays."""
        self._go(1)

    def back(self) -> None:
        """One step back; at the beginning it stays."""
        self._go(-1)

    def _go(self, by: int) -> None:
        place = min(max(0, self._place() + by), self.rounds * len(PHASES) - 1)
        self.move(round=place // len(PHASES) + 1, step=PHASES[place % len(PHASES)])

    def _picture(self) -> tuple[Any, ...]:
        _, decode, k = self.runs[self.state["run"]]
        return self.at, decode, k

    def figure(self) -> go.Figure:
        """The picture as it stands now, without controls."""
        return cache_steps(*self._picture())

    def parts(self) -> dict[str, Any]:
        return cache_parts(*self._picture())

    def make_controls(self, w: Any) -> dict[str, Any]:
        narrow = dict(description_width="initial")
        self.buttons = {
            name: w.Button(description=label, layout=w.Layout(width="96px"))
            for name, label in (("back", "◀ back"), ("next", "next ▶"))
        }
        self.buttons["back"].on_click(lambda _: self.back())
        self.buttons["next"].on_click(lambda _: self.next())
        return dict(
            run=w.Dropdown(options=list(self.runs), description="run", style=narrow, layout=w.Layout(width="330px")),
            round=w.IntSlider(1, 1, self.rounds, description="round", style=narrow, layout=w.Layout(width="270px")),
            step=w.ToggleButtons(options=PHASES, style=dict(button_width="74px")),
        )

    def arrange(self, w: Any) -> list[Any]:
        first = w.HBox([self.controls["run"], self.controls["round"]])
        return [first, w.HBox([*self.buttons.values(), self.controls["step"]])]

    def show(self) -> None:
        self.controls["round"].max = self.rounds
        super().show()
