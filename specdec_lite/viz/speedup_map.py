"""The map of speed-up over acceptance and draft cost, and beside it the curve over K at one place of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..theory.formulas import best_k, break_even, expected_tokens, speedup
from .explorer import Explorer
from .theme import BLUE, GREY, INK, ORANGE, PAPER, PURPLE, VERMILLION, template, uid

if TYPE_CHECKING:
    import plotly.graph_objects as go

KS = range(1, 17)
ACCEPTANCES, COSTS = np.linspace(0, 1, 51), np.linspace(0, 0.6, 41)
HIGHEST = 5.0  # colours end here
# slower than naive is orange, faster is blue, as fast is white: at 1 of 5
COLOURS = ((0.0, VERMILLION), (0.12, "#F2B48C"), (0.2, PAPER), (0.36, "#BBD9EC"), (0.6, "#5FA3CC"), (1.0, "#04507E"))
LIMITS = {"acceptance": (0.0, 1.0), "draft_cost": (0.0, 0.6), "verify_cost": (0.0, 0.3), "k": (1, KS[-1])}


def gains(k: int, verify_cost: float, overhead: float = 0.0) -> np.ndarray:
    """Speed-up with one k at every place of the map. -> [costs, acceptances]"""
    tokens = sum(ACCEPTANCES**i for i in range(k + 1))  # [acceptances]
    return tokens / (1 + overhead + k * (COSTS[:, None] + verify_cost))


def best_gains(verify_cost: float, overhead: float = 0.0) -> np.ndarray:
    """Speed-up with the best k of each place. -> [costs, acceptances]"""
    return np.max([gains(k, verify_cost, overhead) for k in KS], 0)


class SpeedupMap(Explorer):
    """Sliders for acceptance, draft cost, verify cost per row and K; your own pair stays as a diamond.

    What a hand can move, code can too: `explorer.move(acceptance=0.9, k=8)`. `explorer.text` is the readout.

    Args:
        acceptance, draft_cost, verify_cost, k: where the sliders start.
        overhead: what else a round costs, in naive steps.
        own: acceptance and draft cost of a pair that was measured, and its name.
    """

    def __init__(
        self,
        acceptance: float = 0.8,
        draft_cost: float = 0.1,
        verify_cost: float = 0.0,
        k: int = 4,
        overhead: float = 0.0,
        own: tuple[float, float, str] | None = None,
    ) -> None:
        self.overhead, self.own = overhead, own
        self.state = dict(
            acceptance=acceptance, draft_cost=draft_cost, verify_cost=verify_cost, k=k, best_everywhere=False
        )
        self.open()

    def check(self, state: dict[str, Any]) -> None:
        for name, (low, high) in LIMITS.items():
            if not low <= state[name] <= high:
                raise ValueError(f"{name} must lie between {low} and {high}, got {state[name]}")

    # Numbers

    def _rest(self) -> tuple[Any, float]:
        """The verify cost as a function of k, and the overhead: what `formulas` takes."""
        verify = self.state["verify_cost"]
        return (lambda k: 1 + k * verify), self.overhead

    def speedup(self, k: int) -> float:
        """At the dot."""
        return speedup(self.state["acceptance"], k, self.state["draft_cost"], *self._rest())

    @property
    def best(self) -> tuple[int, float]:
        """The best k at the dot, and its speed-up."""
        return best_k(self.state["acceptance"], self.state["draft_cost"], *self._rest(), ks=KS)

    @property
    def text(self) -> str:
        """The readout."""
        a, c, v, k = (self.state[name] for name in ("acceptance", "draft_cost", "verify_cost", "k"))
        tokens, cost = expected_tokens(a, k), 1 + self.overhead + k * (c + v)
        best, gain = self.best
        from_ = break_even(k, c, *self._rest())
        even = f"from acceptance {from_:.2f} on" if from_ <= 1 else "at no acceptance"
        advice = f"Best K = {best}: {gain:.2f}." if gain > 1 else "No K helps here: do not speculate."
        return (
            f"Acceptance {a:.2f}, draft cost {c:.2f}, verify cost {v:.2f} a row, K = {k}: {tokens:.2f} tokens a round "
            f"for {cost:.2f} naive steps, so {self.speedup(k):.2f} times as fast as naive.\n"
            f"{advice} K = {k} pays {even}."
        )

    # Pictures

    def parts(self) -> dict[str, Any]:
        """Traces as plain data, always the same ones in the same order."""
        a, c, v, k = (self.state[name] for name in ("acceptance", "draft_cost", "verify_cost", "k"))
        everywhere = self.state["best_everywhere"]
        z = best_gains(v, self.overhead) if everywhere else gains(k, v, self.overhead)
        best, gain = self.best
        over = [round(self.speedup(n), 3) for n in KS]
        own = self.own or (None, None, "")
        return {
            "z": np.minimum(z, 99).round(3).tolist(),
            "dot": ([a], [c]),
            "own": ([own[0]], [own[1]]),
            "curve": (list(KS), over),
            "k": ([k], [round(self.speedup(k), 3)]),
            "best": ([best], [round(gain, 3)]),
            "titles": (
                "Times as fast, each place with its best K" if everywhere else f"Times as fast as naive, K = {k}",
                "At the dot, over K",
            ),
            "top": max(2.0, 1.15 * gain),
        }

    def figure(self) -> go.Figure:
        """The picture as it stands now, without controls."""
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots

        parts = self.parts()
        figure = make_subplots(cols=2, subplot_titles=parts["titles"], column_widths=[0.6, 0.4], horizontal_spacing=0.1)
        figure.update_layout(
            template=template(), height=430, margin=dict(t=48, b=112, l=56, r=16), meta=dict(alt=self.text)
        )
        levels = dict(
            coloring="heatmap", start=0.5, end=8, size=0.5, showlabels=True, labelfont=dict(size=11, color=INK)
        )
        surface = go.Contour(
            x=ACCEPTANCES.round(3).tolist(), y=COSTS.round(4).tolist(), z=parts["z"], zmin=0, zmax=HIGHEST,
            colorscale=COLOURS, showscale=False, contours=levels, line=dict(color=GREY, width=0.7),
            uid=uid("map", "surface"), name="speed-up",
            hovertemplate="acceptance %{x:.2f}, draft cost %{y:.2f}: %{z:.2f} times<extra></extra>",
        )  # fmt: skip
        # break-even, thick: a second set of contours that has the level 1 alone
        even = go.Contour(
            x=surface.x, y=surface.y, z=parts["z"], showscale=False, uid=uid("map", "even"), hoverinfo="skip",
            contours=dict(coloring="none", start=1, end=1, size=1), line=dict(color=INK, width=3), showlegend=False,
        )  # fmt: skip
        for trace in (surface, even):
            figure.add_trace(trace, row=1, col=1)
        for name, mark, size, colour in (("own", "diamond", 12, PURPLE), ("dot", "circle", 14, ORANGE)):
            label = (self.own[2] if self.own else "") if name == "own" else "you are here"
            figure.add_trace(_mark(label, parts[name], mark, size, colour, bool(label)), row=1, col=1)
        figure.add_trace(
            go.Scatter(
                x=parts["curve"][0], y=parts["curve"][1], mode="lines+markers", uid=uid("map", "curve"),
                line=dict(color=BLUE, width=2), marker=dict(size=6), showlegend=False,
                hovertemplate="K = %{x}: %{y:.2f} times<extra></extra>",
            ),
            row=1, col=2,
        )  # fmt: skip
        figure.add_trace(_mark("K of the slider", parts["k"], "circle", 14, ORANGE, False), row=1, col=2)
        figure.add_trace(_mark("best K", parts["best"], "star", 16, BLUE, True), row=1, col=2)
        figure.add_trace(
            go.Scatter(
                x=[0.5, KS[-1] + 0.5], y=[1, 1], mode="lines", line=dict(color=INK, width=3), hoverinfo="skip",
                name="as fast as naive", uid=uid("map", "level"),
            ),
            row=1, col=2,
        )  # fmt: skip
        figure.update_xaxes(title="acceptance: the chance that a draft is kept", range=[0, 1], row=1, col=1)
        figure.update_yaxes(title="draft cost, in naive steps a token", range=[0, 0.6], row=1, col=1)
        figure.update_xaxes(
            title="K, tokens drafted a round", range=[0.5, KS[-1] + 0.5], dtick=3, tick0=1, row=1, col=2
        )
        figure.update_yaxes(range=[0, parts["top"]], row=1, col=2)
        figure.update_annotations(font_size=13)
        return figure.update_layout(legend=dict(y=-0.24, entrywidth=140))

    def make_controls(self, w: Any) -> dict[str, Any]:
        look = dict(style=dict(description_width="150px"), layout=w.Layout(width="400px"))

        def slider(name: str, words: str, step: float) -> Any:
            low, high = LIMITS[name]
            kind = w.IntSlider if name == "k" else w.FloatSlider
            return kind(self.state[name], min=low, max=high, step=step, description=words, **look)

        return dict(
            acceptance=slider("acceptance", "acceptance", 0.01),
            draft_cost=slider("draft_cost", "draft cost", 0.01),
            verify_cost=slider("verify_cost", "verify cost per row", 0.01),
            k=slider("k", "K", 1),
            best_everywhere=w.Checkbox(False, description="map: the best K of each place", indent=False),
        )

    def arrange(self, w: Any) -> list[Any]:
        rows = list(self.controls.values())
        return [w.HBox([w.VBox(rows[:2]), w.VBox(rows[2:4])]), rows[4]]

    def redraw(self) -> None:
        parts = self.parts()
        surface, even, _, dot, curve, at, best, _ = self.plot.data
        with self.plot.batch_update():
            surface.z = even.z = parts["z"]
            for trace, name in ((dot, "dot"), (curve, "curve"), (at, "k"), (best, "best")):
                trace.x, trace.y = parts[name]
            self.plot.layout.annotations[0].text = parts["titles"][0]
            self.plot.layout.yaxis2.range = [0, parts["top"]]


def _mark(
    name: str, place: tuple[list[Any], list[Any]], symbol: str, size: int, colour: str, legend: bool
) -> go.Scatter:
    import plotly.graph_objects as go

    return go.Scatter(
        x=place[0], y=place[1], mode="markers", name=name, showlegend=legend,
        uid=uid("map", symbol, colour, name or "own"),
        marker=dict(symbol=symbol, size=size, color=colour, line=dict(color=INK, width=1.5)),
        hovertemplate=f"{name}: %{{x:.2f}}, %{{y:.2f}}<extra></extra>",
    )  # fmt: skip
