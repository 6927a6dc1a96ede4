"""A widget that steps through a recorded run: what lies in both caches after each step of each round."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from ..trace import Trace
from .cache_steps import PHASES, Decode, Snapshot, cache_parts, cache_steps, snapshots, step_sentence
from .figures import bundle
from .theme import INK, PAPER, SANS
from .widgets import MISSING, WIDGET, WIDTH, live_possible

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOVING = ("x", "y", "base", "text", "hovertext")


class CacheStepper:
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
        self.state: dict[str, Any] = dict(run=next(iter(runs)), round=1, step=PHASES[0])
        self.live: Any = None
        self.live = self._build() if live_possible() else None

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
        if unknown := changes.keys() - self.state.keys():
            raise ValueError(f"there is no control {sorted(unknown)}; there are {list(self.state)}")
        if changes.get("run", self.state["run"]) != self.state["run"]:
            changes = dict(round=1, step=PHASES[0]) | changes
        state = self.state | changes
        if state["run"] not in self.runs:
            raise ValueError(f"run must be one of {list(self.runs)}, got {state['run']!r}")
        most = len(self.runs[state["run"]][0]) // len(PHASES)
        if state["round"] not in range(1, most + 1):
            raise ValueError(f"round must be one of 1 to {most}, got {state['round']!r}")
        if state["step"] not in PHASES:
            raise ValueError(f"step must be one of {list(PHASES)}, got {state['step']!r}")
        before, self.state = self.state, state
        if self.live is not None and before != state:
            self._show()

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

    def _build(self) -> Any:
        import ipywidgets as w
        import plotly.graph_objects as go

        narrow = dict(description_width="initial")
        self.buttons = {
            name: w.Button(description=label, layout=w.Layout(width="96px"))
            for name, label in (("back", "◀ back"), ("next", "next ▶"))
        }
        self.buttons["back"].on_click(lambda _: self.back())
        self.buttons["next"].on_click(lambda _: self.next())
        self.controls = dict(
            run=w.Dropdown(options=list(self.runs), description="run", style=narrow, layout=w.Layout(width="330px")),
            round=w.IntSlider(1, 1, self.rounds, description="round", style=narrow, layout=w.Layout(width="270px")),
            step=w.ToggleButtons(options=PHASES, style=dict(button_width="74px")),
        )
        self.busy = False
        for name, control in self.controls.items():
            control.observe(lambda change, name=name: self._moved(**{name: change["new"]}), "value")
        self.readout = w.HTML(self._readout())
        self.plot = go.FigureWidget(self.figure().update_layout(width=WIDTH))
        first = w.HBox([self.controls["run"], self.controls["round"]])
        return w.VBox([first, w.HBox([*self.buttons.values(), self.controls["step"]]), self.readout, self.plot])

    def _moved(self, **changes: Any) -> None:
        """A hand moved a control (or `_show` did, and then nothing is left to do)."""
        if not self.busy:
            self.move(**changes)

    def _show(self) -> None:
        """Controls, readout and figure take over the state."""
        self.busy = True
        try:
            self.controls["round"].max = self.rounds
            for name, control in self.controls.items():
                control.value = self.state[name]
        finally:
            self.busy = False
        self.readout.value = self._readout()
        redraw(self.plot, cache_parts(*self._picture()))

    def _readout(self) -> str:
        style = f"font:14px/1.5 {SANS};color:{INK};background:{PAPER};padding:4px 8px;max-width:{WIDTH}px"
        style += ";white-space:pre-wrap"  # a token may be four blanks
        lines = escape(self.text).replace("\n", "<br>")
        return f'<div class="specdec-readout" role="status" style="{style}">{lines}</div>'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        if self.live is None:
            return bundle(self.figure()) | {"text/plain": f"{self.text}\n{MISSING}"}
        view = {"version_major": 2, "version_minor": 0, "model_id": self.live.model_id}
        return {WIDGET: view, "text/plain": self.text}


def redraw(plot: go.FigureWidget, parts: dict[str, Any]) -> None:
    """Give a live figure the data and the labels of another one of the same make."""
    layout = parts["layout"]
    with plot.batch_update():
        for old, new in zip(plot.data, parts["data"], strict=True):
            old.update({name: new[name] for name in MOVING if name in new})
        plot.layout.annotations[0].text = layout["annotations"][0]["text"]
        plot.layout.xaxis.range, plot.layout.yaxis.ticktext = layout["xaxis"]["range"], layout["yaxis"]["ticktext"]
