"""The frame of every widget: a state that code and controls move alike, a readout in words, a live figure.

A control moves, a pure figure is computed, the live one takes its data; so a move costs milliseconds
and works without a browser too. Where ipywidgets or anywidget is missing, the same object shows a
static figure and one line that says how to get the live one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Mapping
from html import escape
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .figures import bundle
from .theme import INK, PAPER, SANS

if TYPE_CHECKING:
    import plotly.graph_objects as go

WIDTH = 820  # pixels, as wide as the text under it
MISSING = "A still picture: install ipywidgets and anywidget for the slider (pip install 'specdec-lite[notebooks]')."
WIDGET = "application/vnd.jupyter.widget-view+json"
STYLE = f"font:14px/1.5 {SANS};color:{INK};background:{PAPER};padding:4px 8px;max-width:{WIDTH}px;white-space:pre-wrap"


def live_possible() -> bool:
    """Whether sliders can move here."""
    return all(find_spec(name) is not None for name in ("ipywidgets", "anywidget"))


class Explorer(ABC):
    """A widget; a subclass has a state, its choices, a readout, a figure and the controls.

    `explorer.move(k=7)` moves a control from code, `explorer.text` is the readout, `explorer.state` the
    settings. A subclass sets its state and calls `open` at the end of its `__init__`.
    """

    state: dict[str, Any]
    controls: dict[str, Any]  # by the name of the setting
    live: Any = None  # the ipywidget, or None where there can be none
    moving: tuple[str, ...] = ("x", "y", "base", "text", "hovertext")  # what a move changes in a trace

    def open(self) -> None:
        """Check the state, and build the live widget where it can be shown."""
        self.check(self.state)
        if not live_possible():
            return
        import ipywidgets
        import plotly.graph_objects as go

        self.busy = False
        self.controls = self.make_controls(ipywidgets)
        for name, control in self.controls.items():
            control.observe(lambda change, name=name: self.moved(**{name: change["new"]}), "value")
        self.readout, self.words = ipywidgets.HTML(self._readout()), ipywidgets.HTML(self.page())
        self.plot = go.FigureWidget(self.figure().update_layout(width=WIDTH))  # of itself it stays at 700
        below = [self.words] if self.page() else []
        self.live = ipywidgets.VBox([*self.arrange(ipywidgets), self.readout, self.plot, *below])

    # What a subclass says

    @property
    @abstractmethod
    def text(self) -> str:
        """The readout."""

    @abstractmethod
    def figure(self) -> go.Figure:
        """The picture as it stands now, without controls."""

    @abstractmethod
    def make_controls(self, w: Any) -> dict[str, Any]:
        """A control for each setting, showing the state. `w` is ipywidgets."""

    def choices(self, state: Mapping[str, Any]) -> dict[str, Container[Any]]:
        """The values each setting may have, where they can be listed."""
        return {}

    def check(self, state: dict[str, Any]) -> None:
        """Refuse a state that cannot be shown.

        Raises:
            ValueError: a value that is not there.
        """
        for name, allowed in self.choices(state).items():
            if state[name] not in allowed:
                values = f"{allowed[0]} to {allowed[-1]}" if isinstance(allowed, range) else list(allowed)
                raise ValueError(f"{name} must be one of {values}, got {state[name]!r}")

    def arrange(self, w: Any) -> list[Any]:
        """The controls in rows."""
        return [w.HBox(list(self.controls.values()))]

    def page(self) -> str:
        """HTML under the figure, or nothing."""
        return ""

    def parts(self) -> dict[str, Any]:
        """The figure as plain data and layout."""
        raise NotImplementedError

    def redraw(self) -> None:
        """Give the live figure the state: the data, labels and ranges of another figure of the same make."""
        redraw(self.plot, self.parts(), self.moving)

    def show(self) -> None:
        """Let the controls show the state."""
        for name, control in self.controls.items():
            control.value = self.state[name]

    # What all do

    def move(self, **changes: Any) -> None:
        """Set any of the settings.

        Raises:
            ValueError: a name or a value that is not there. Then nothing has changed.
        """
        if unknown := changes.keys() - self.state.keys():
            raise ValueError(f"there is no control {sorted(unknown)}; there are {sorted(self.state)}")
        before, state = self.state, self.state | changes
        self.check(state)
        self.state = state
        if self.live is None or before == state:
            return
        self.busy = True
        try:
            self.show()
        finally:
            self.busy = False
        self.readout.value, self.words.value = self._readout(), self.page()
        self.redraw()

    def moved(self, **changes: Any) -> None:
        """A control was moved: by a hand, or by `show`, and then nothing is left to do."""
        if not self.busy:
            self.move(**{name: round(v, 6) if isinstance(v, float) else v for name, v in changes.items()})

    def _readout(self) -> str:
        return f'<div class="specdec-readout" role="status" style="{STYLE}">{escape(self.text)}</div>'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        if self.live is None:
            return bundle(self.figure()) | {"text/plain": f"{self.text}\n{MISSING}"}
        view = {"version_major": 2, "version_minor": 0, "model_id": self.live.model_id}
        return {WIDGET: view, "text/plain": self.text}


def redraw(plot: go.FigureWidget, parts: dict[str, Any], moving: tuple[str, ...]) -> None:
    """Give a live figure the data, labels and ranges of another one of the same make."""
    layout = parts["layout"]
    with plot.batch_update():
        for old, new in zip(plot.data, parts["data"], strict=True):
            old.update({name: new[name] for name in moving if name in new})
        for old, new in zip(plot.layout.annotations, layout["annotations"], strict=True):
            old.update({name: new[name] for name in ("text", "y") if name in new})
        for name in (each for each in layout if each.startswith(("xaxis", "yaxis"))):
            plot.layout[name].update(
                {each: layout[name][each] for each in ("range", "ticktext") if each in layout[name]}
            )
        plot.layout.height = layout["height"]
        if "legend2" in layout:
            plot.layout.legend2.y = layout["legend2"]["y"]
