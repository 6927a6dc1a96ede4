"""A widget for acceptance: temperature and K, over texts that were recorded, so that no move runs a model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from ..pocket.recorded import Places, load_places
from ..theory.acceptance_counts import Verdicts, expected
from .acceptance import metrics_parts, verdicts_parts
from .explorer import Explorer
from .theme import template
from .tokens import chances_html

if TYPE_CHECKING:
    import plotly.graph_objects as go

KS = range(1, 9)


class AcceptanceExplorer(Explorer):
    """Two sliders over the pocket pair's recorded agreement: bars by position, metrics by K, the text itself.

    What a hand can move, code can too: `explorer.move(temperature=0.5, k=8, text=3)`. `explorer.text` is
    what the line under the sliders says. Every count is expected, not drawn: see `theory.verdicts`.

    Args:
        places: by temperature; default, those that ship with the package.
        temperature, k: where the sliders start.
    """

    def __init__(self, places: Mapping[float, Places] | None = None, temperature: float = 1.0, k: int = 4) -> None:
        self.places = dict(places or load_places())
        self.by_k = cache(self._by_k)
        self.most = max(self.by_k(each)[KS[-1]].tokens_per_round for each in self.places)
        self.state = dict(temperature=temperature, k=k, text=1)
        self.open()

    def _by_k(self, temperature: float) -> dict[int, Verdicts]:
        chances = [each.chance for each in self.places[temperature].texts]
        return {k: expected(chances, k) for k in KS}

    def choices(self, state: Mapping[str, Any]) -> dict[str, Any]:
        shown = self.places.get(state["temperature"])
        return dict(temperature=list(self.places), k=KS, text=range(1, len(shown.texts) + 1 if shown else 1))

    def here(self) -> Places:
        """The texts at the temperature that is set."""
        return self.places[self.state["temperature"]]

    @property
    def verdicts(self) -> Verdicts:
        """What the settings give on average."""
        return self.by_k(self.state["temperature"])[self.state["k"]]

    @property
    def text(self) -> str:
        """What is to be seen, in words and numbers."""
        now, k = self.verdicts, self.state["k"]
        name = "Greedy" if self.state["temperature"] == 0 else f"Temperature {self.state['temperature']:g}"
        reach = now.judged[-1] / now.drafted[-1]
        return (
            f"{name}, K = {k}: accepted over judged {now.accepted_per_judged:.2f}, over drafted "
            f"{now.accepted_per_drafted:.2f}; mean overlap {self.here().mean_overlap:.2f}.\n"
            f"{now.tokens_per_round:.2f} tokens a round, {now.tokens_per_round_without_bonus:.2f} without the bonus. "
            f"The last draft of a round gets a verdict in {reach:.0%} of the rounds."
        )

    # Pictures

    def parts(self) -> dict[str, Any]:
        """Bars above, metrics below, in one frame that is the same for all settings."""
        upper = verdicts_parts(self.verdicts, sampled=False, places=KS[-1])
        lower = metrics_parts(self.by_k(self.state["temperature"]), self.state["k"], self.most)
        for each in lower["data"]:
            each["xaxis"] = "x2" if each["xaxis"] == "x" else "x3"
            each["yaxis"] = "y2" if each["yaxis"] == "y" else "y3"
            each["legend"] = "legend2"
        heads = [each | dict(y=0.40) for each in lower["layout"]["annotations"]]
        layout = dict(
            height=720,
            barmode="overlay",
            margin=dict(t=16, b=64, l=56, r=12),
            xaxis=upper["layout"]["xaxis"] | dict(anchor="y"),
            yaxis=upper["layout"]["yaxis"] | dict(domain=[0.62, 1]),
            xaxis2=lower["layout"]["xaxis"] | dict(anchor="y2"),
            yaxis2=lower["layout"]["yaxis"] | dict(domain=[0.06, 0.39]),
            xaxis3=lower["layout"]["xaxis2"] | dict(anchor="y3"),
            yaxis3=lower["layout"]["yaxis2"] | dict(domain=[0.06, 0.39], anchor="x3"),
            annotations=heads,
            legend=dict(y=0.52, entrywidth=136),
            legend2=dict(
                orientation="h", x=0, xanchor="left", y=-0.06, yanchor="top", entrywidth=136, font=dict(size=12)
            ),
            meta=dict(alt=self.text),
        )
        return dict(data=upper["data"] + lower["data"], layout=layout)

    def figure(self) -> go.Figure:
        """The picture as it stands now, without controls."""
        import plotly.graph_objects as go

        return go.Figure(self.parts(), layout_template=template())

    def page(self) -> str:
        """One of the texts, each token with its chance."""
        places = self.here()
        text = places.texts[self.state["text"] - 1]
        pieces = [places.decode([token]) for token in text.tokens]
        return chances_html(pieces, text.chance, places.decode(text.prompt))

    def make_controls(self, w: Any) -> dict[str, Any]:
        look = dict(style=dict(description_width="86px"), layout=w.Layout(width="330px"))
        degrees = [(f"{each:g}" if each else "0, greedy", each) for each in self.places]
        texts, narrow = len(self.here().texts), look | dict(layout=w.Layout(width="160px"))
        now = self.state
        return dict(
            temperature=w.SelectionSlider(options=degrees, value=now["temperature"], description="temperature", **look),
            k=w.IntSlider(now["k"], KS[0], KS[-1], description="K", **look),
            text=w.BoundedIntText(1, min=1, max=texts, description=f"text 1 to {texts}", **narrow),
        )
