"""A widget for the museum: pick an exhibit, see which texts it writes, and read what the alarms say."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from ..teaching.museum import MUSEUM
from ..teaching.museum.alarms import Reading
from ..theory.exact import Distribution
from .figures import bundle
from .museum import effect, effect_parts, effect_sentence, texts_of
from .theme import INK, PAPER, SANS
from .widgets import MISSING, WIDGET, WIDTH, live_possible

if TYPE_CHECKING:
    import plotly.graph_objects as go

EXHIBITS = {exhibit.name: exhibit for exhibit in MUSEUM}


class MuseumExplorer:
    """A list of exhibits over what was read before, so that no move runs a model.

    What a hand can move, code can too: `explorer.exhibit = "sample and match"`. `explorer.text` is what the
    readout says.

    Args:
        readings: of the exhibits to show.
        wanted: the target's own distribution.
    """

    def __init__(self, readings: Sequence[Reading], wanted: Distribution) -> None:
        self.readings, self.wanted = {each.name: each for each in readings}, wanted
        self.texts = texts_of(wanted, [each.written for each in readings])
        self._exhibit = readings[0].name
        self.live: Any = self._build() if live_possible() else None

    @property
    def exhibit(self) -> str:
        return self._exhibit

    @exhibit.setter
    def exhibit(self, name: str) -> None:
        if name not in self.readings:
            raise ValueError(f"exhibit must be one of {list(self.readings)}, got {name!r}")
        before, self._exhibit = self._exhibit, name
        if self.live is not None and before != name:
            self._show()

    @property
    def text(self) -> str:
        """The readout."""
        reading, about = self.readings[self._exhibit], EXHIBITS[self._exhibit]
        rings = [alarm for alarm, rung in reading.rings.items() if rung]
        return "\n".join(
            [
                f"{about.name}, {about.kind}. {about.story}",
                f"Enumeration: off by {reading.off:.3f}. Twin: kept {reading.kept:.2f}, promised "
                f"{reading.promised:.2f}. Dice: p-value {reading.p_value:.1g}. "
                f"Rings: {' and '.join(rings) or 'nothing'}.",
                effect_sentence(reading, self.wanted),
            ]
        )

    def figure(self) -> go.Figure:
        """The picture as it stands now, without controls."""
        return effect(self.readings[self._exhibit], self.wanted, self.texts)

    def _build(self) -> Any:
        import ipywidgets as w
        import plotly.graph_objects as go

        self.choice = w.Dropdown(
            options=list(self.readings), value=self._exhibit, description="exhibit",
            style=dict(description_width="60px"), layout=w.Layout(width="380px"),
        )  # fmt: skip
        self.choice.observe(lambda change: setattr(self, "exhibit", change["new"]), "value")
        self.readout = w.HTML(self._readout())
        self.plot = go.FigureWidget(self.figure().update_layout(width=WIDTH))
        return w.VBox([self.choice, self.readout, self.plot])

    def _show(self) -> None:
        """Control, readout and figure take over the state."""
        self.choice.value, self.readout.value = self._exhibit, self._readout()
        parts = effect_parts(self.readings[self._exhibit], self.wanted, self.texts)
        with self.plot.batch_update():
            bar, new = self.plot.data[0], parts["data"][0]
            bar.y, bar.hovertext = new["y"], new["hovertext"]
            bar.marker.update(new["marker"])
            self.plot.layout.annotations[0].text = parts["layout"]["annotations"][0]["text"]

    def _readout(self) -> str:
        style = f"font:14px/1.5 {SANS};color:{INK};background:{PAPER};padding:4px 8px;max-width:{WIDTH}px"
        lines = escape(self.text).replace("\n", "<br>")
        return f'<div class="specdec-readout" role="status" style="{style}">{lines}</div>'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        if self.live is None:
            return bundle(self.figure()) | {"text/plain": f"{self.text}\n{MISSING}"}
        view = {"version_major": 2, "version_minor": 0, "model_id": self.live.model_id}
        return {WIDGET: view, "text/plain": self.text}
