"""A widget for the museum: pick an exhibit, see which texts it writes, and read what the alarms say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..teaching.museum import MUSEUM
from ..teaching.museum.alarms import Reading
from ..theory.exact import Distribution
from .explorer import Explorer
from .museum import effect, effect_parts, effect_sentence, texts_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

EXHIBITS = {exhibit.name: exhibit for exhibit in MUSEUM}


class MuseumExplorer(Explorer):
    """A list of exhibits over what was read before, so that no move runs a model.

    What a hand can move, code can too: `explorer.move(exhibit="sample and match")`. `explorer.text` is what the
    readout says.

    Args:
        readings: of the exhibits to show.
        wanted: the target's own distribution.
    """

    def __init__(self, readings: Sequence[Reading], wanted: Distribution) -> None:
        self.readings, self.wanted = {each.name: each for each in readings}, wanted
        self.texts = texts_of(wanted, [each.written for each in readings])
        self.state = dict(exhibit=readings[0].name)
        self.open()

    def choices(self, state: Mapping[str, Any]) -> dict[str, Any]:
        return dict(exhibit=list(self.readings))

    moving = ("y", "hovertext", "marker")

    @property
    def reading(self) -> Reading:
        """What the alarms said of the exhibit that is shown."""
        return self.readings[self.state["exhibit"]]

    @property
    def text(self) -> str:
        """The readout."""
        reading, about = self.reading, EXHIBITS[self.state["exhibit"]]
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
        return effect(self.reading, self.wanted, self.texts)

    def parts(self) -> dict[str, Any]:
        return effect_parts(self.reading, self.wanted, self.texts)

    def make_controls(self, w: Any) -> dict[str, Any]:
        look = dict(style=dict(description_width="60px"), layout=w.Layout(width="380px"))
        names = list(self.readings)
        return dict(exhibit=w.Dropdown(options=names, value=self.state["exhibit"], description="exhibit", **look))
