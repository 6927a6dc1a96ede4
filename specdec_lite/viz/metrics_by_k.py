"""The same draft under every K: four metrics of one agreement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..theory.verdicts import Verdicts
from .theme import BLUE, GREEN, GREY, ORANGE, VERMILLION, template, uid

if TYPE_CHECKING:
    import plotly.graph_objects as go

SHARES = (
    ("accepted over judged", "accepted_per_judged", GREEN, "diamond", "solid"),
    ("accepted over drafted", "accepted_per_drafted", VERMILLION, "circle", "dash"),
)
TOKENS = (
    ("tokens, with the bonus", "tokens_per_round", BLUE, "star", "solid"),
    ("tokens, without the bonus", "tokens_per_round_without_bonus", ORANGE, "square", "dot"),
)


def metrics_by_k(by_k: Mapping[int, Verdicts]) -> go.Figure:
    """Left the two shares, right the two counts of tokens. Arguments as for `metrics_parts`."""
    import plotly.graph_objects as go

    return go.Figure(metrics_parts(by_k), layout_template=template())


def metrics_parts(by_k: Mapping[int, Verdicts], k: int | None = None, most: float | None = None) -> dict[str, Any]:
    """The picture as plain data and layout.

    Args:
        by_k: verdicts for each k.
        k: one to mark with a line.
        most: the top of the right axis (default: what fits).
    """
    ks = list(by_k)
    data = [_line(each, by_k, 1) for each in SHARES] + [_line(each, by_k, 2) for each in TOKENS]
    top = most or max(each.tokens_per_round for each in by_k.values())
    for panel, height in ((1, 1.02), (2, 1.06 * top)):
        at = [k, k] if k is not None else [None, None]
        data.append(_here(at, height, panel))
    ticks = dict(title=dict(text="K, tokens drafted a round"), dtick=1, range=[min(ks) - 0.4, max(ks) + 0.4])
    layout = dict(
        height=340,
        margin=dict(t=40, b=100, l=48, r=12),
        xaxis=ticks | dict(domain=[0, 0.46]),
        xaxis2=ticks | dict(domain=[0.54, 1], anchor="y2"),
        yaxis=dict(range=[0, 1.02]),
        yaxis2=dict(range=[0, round(1.06 * top, 2)], anchor="x2"),
        annotations=[_head("<b>Share accepted</b>", 0), _head("<b>Tokens in one target forward</b>", 0.54)],
        legend=dict(y=-0.24, entrywidth=136),
        meta=dict(alt=metrics_sentence(by_k)),
    )
    return dict(data=data, layout=layout)


def metrics_sentence(by_k: Mapping[int, Verdicts]) -> str:
    """What the lines show, in words and numbers."""
    (first, one), (last, other) = list(by_k.items())[0], list(by_k.items())[-1]
    told = ", ".join(
        f"{name} goes from {getattr(one, field):.2f} to {getattr(other, field):.2f}"
        for name, field, *_ in (*SHARES, *TOKENS)
    )
    return f"From K = {first} to K = {last}: {told}."


def _line(what: tuple[str, str, str, str, str], by_k: Mapping[int, Verdicts], panel: int) -> dict[str, Any]:
    name, field, colour, symbol, dash = what
    return dict(
        type="scatter", mode="lines+markers", name=name, uid=uid("metrics", name), x=list(by_k),
        y=[round(getattr(each, field), 4) for each in by_k.values()], line=dict(color=colour, dash=dash, width=2),
        marker=dict(color=colour, symbol=symbol, size=9), hovertemplate="K = %{x}: %{y:.3f}",
        xaxis="x" if panel == 1 else "x2", yaxis="y" if panel == 1 else "y2",
    )  # fmt: skip


def _here(at: list[Any], height: float, panel: int) -> dict[str, Any]:
    """A line that says which k is meant."""
    return dict(
        type="scatter", mode="lines", name="this K", uid=uid("metrics", "here", panel), x=at, y=[0, round(height, 2)],
        line=dict(color=GREY, width=1.5, dash="dot"), hoverinfo="skip", showlegend=False,
        xaxis="x" if panel == 1 else "x2", yaxis="y" if panel == 1 else "y2",
    )  # fmt: skip


def _head(text: str, x: float) -> dict[str, Any]:
    place = dict(x=x, y=1.03, xref="paper", yref="paper", xanchor="left", yanchor="bottom")
    return place | dict(text=text, showarrow=False, font=dict(size=14))
