"""A widget that shapes a next-token distribution and walks one uniform number along it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..sampling.distributions import Sampling
from .explorer import WIDTH, Explorer
from .next_token import Decode, Draw, next_token, next_token_parts, next_token_sentence

if TYPE_CHECKING:
    import plotly.graph_objects as go

TOP_KS = (0, 1, 2, 3, 5, 10, 20, 50, 100, 500)
LARGEST_UNIFORM = 0.999


class NextTokenExplorer(Explorer):
    """A choice of places in a text, and sliders for temperature, top-k, top-p and the uniform number.

    What a hand can move, code can too: `explorer.move(temperature=0.5, top_k=5, uniform=0.9)`.
    `explorer.text` is what the readout says. Logits are computed before, so no move runs a model.

    Args:
        places: name -> logits [vocab]; the first is shown.
        decode: tokens -> text.

    Raises:
        ValueError: no place.
    """

    def __init__(self, places: Mapping[str, Tensor], decode: Decode) -> None:
        if not places:
            raise ValueError("needs at least one place: a name and the logits there")
        self.places = {name: logits.detach().double().cpu() for name, logits in places.items()}
        self.decode = decode
        self.state = dict(place=next(iter(places)), temperature=1.0, top_k=0, top_p=1.0, uniform=0.5)
        self.open()

    moving = (*Explorer.moving, "marker")

    def choices(self, state: Mapping[str, Any]) -> dict[str, Any]:
        return dict(place=list(self.places), top_k=TOP_KS)

    def check(self, state: dict[str, Any]) -> None:
        super().check(state)
        if not 0 <= state["uniform"] < 1:
            raise ValueError(f"uniform must lie between 0 and 1, and below 1, got {state['uniform']}")
        Sampling(state["temperature"], state["top_k"], state["top_p"])  # refuses what is out of range

    @property
    def draw(self) -> Draw:
        """Distribution and token as they stand now."""
        sampling = Sampling(self.state["temperature"], self.state["top_k"], self.state["top_p"])
        return Draw(self.places[self.state["place"]], sampling, self.state["uniform"])

    @property
    def text(self) -> str:
        """The readout."""
        return f"{self.state['place']}\n{next_token_sentence(self.draw, self.decode)}"

    def figure(self) -> go.Figure:
        """The picture as it stands now, without controls."""
        return next_token(self.draw, self.decode)

    def parts(self) -> dict[str, Any]:
        return next_token_parts(self.draw, self.decode)

    def make_controls(self, w: Any) -> dict[str, Any]:
        look = dict(style=dict(description_width="110px"), layout=w.Layout(width="400px"))
        kept = [(str(k) if k else "off", k) for k in TOP_KS]
        return dict(
            place=w.Dropdown(options=list(self.places), description="place", **look),
            temperature=w.FloatSlider(1.0, min=0.0, max=2.0, step=0.1, description="temperature", **look),
            top_k=w.SelectionSlider(options=kept, value=0, description="top-k", **look),
            top_p=w.FloatSlider(1.0, min=0.05, max=1.0, step=0.05, description="top-p (1: off)", **look),
            uniform=w.FloatSlider(
                0.5, min=0.0, max=LARGEST_UNIFORM, step=0.001, readout_format=".3f", description="uniform number",
                style=look["style"], layout=w.Layout(width=f"{WIDTH}px"),
            ),
        )  # fmt: skip

    def arrange(self, w: Any) -> list[Any]:
        place, temperature, top_k, top_p, uniform = self.controls.values()
        return [w.HBox([w.VBox([place, temperature]), w.VBox([top_k, top_p])]), uniform]
