"""A widget over recorded runs: the race, the prediction in words and the coloured text for each K."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..pocket.recorded import Recorded, load_recorded
from .explorer import Explorer
from .figures import k_sentence, recorded_race, recorded_race_parts
from .tokens import tokens_html

if TYPE_CHECKING:
    import plotly.graph_objects as go


class KExplorer(Explorer):
    """One slider for k over recorded runs: the race, the prediction in words, the coloured text.

    `explorer.move(k=7, temperature=1)` moves the controls from code; `explorer.text` is what the readout says.

    Args:
        recordings: default, those that ship with the package.
        k: where the slider starts.
    """

    moving = ("x", "y", "base", "hovertext")

    def __init__(self, recordings: Sequence[Recorded] | None = None, k: int = 4) -> None:
        self.recordings = {each.temperature: each for each in recordings or load_recorded()}
        self.state = dict(temperature=next(iter(self.recordings)), k=k)
        self.open()

    def choices(self, state: Mapping[str, Any]) -> dict[str, Any]:
        recorded = self.recordings.get(state["temperature"])
        return dict(temperature=list(self.recordings), k=list(recorded.runs) if recorded else [])

    @property
    def recorded(self) -> Recorded:
        """The runs at the temperature that is set."""
        return self.recordings[self.state["temperature"]]

    @property
    def text(self) -> str:
        """The readout."""
        return k_sentence(self.recorded, self.state["k"])

    def figure(self) -> go.Figure:
        """The race as it stands now, without controls."""
        return recorded_race(self.recorded, self.state["k"])

    def parts(self) -> dict[str, Any]:
        return recorded_race_parts(self.recorded, self.state["k"])

    def page(self) -> str:
        """The text as it stands now, token by token."""
        return tokens_html(self.recorded.runs[self.state["k"]], self.recorded.decode, self.recorded.prompt)

    def make_controls(self, w: Any) -> dict[str, Any]:
        ks, now = list(self.recorded.runs), self.state
        look = dict(style=dict(description_width="initial"), layout=w.Layout(width="420px"))
        choices = [(each.title, temperature) for temperature, each in self.recordings.items()]
        return dict(
            k=w.IntSlider(now["k"], ks[0], ks[-1], description="K, tokens drafted a round", **look),
            temperature=w.ToggleButtons(options=choices, value=now["temperature"], style=dict(button_width="130px")),
        )
