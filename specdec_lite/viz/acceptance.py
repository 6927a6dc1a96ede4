"""What became of the drafts, position by position: a bar for each, in three parts, and the rate among the judged.

The lowest part alone over the whole bar is accepted over drafted; it over the two lower parts is
accepted over judged. So the misleading metric and the honest one can be read off the same bars.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..theory.acceptance_counts import Verdicts
from ..theory.formulas import estimate_acceptance
from .theme import BLUE, GREEN, GREY, INK, KINDS, ORANGE, PAPER, RULE, VERMILLION, template, uid

if TYPE_CHECKING:
    import plotly.graph_objects as go


WIDTH = 0.66  # of a bar, in positions
SMALLEST_LABEL = 0.06  # a lower part has no room for its number
LOOKS = {  # line and pattern, ground, pattern
    "accepted": (KINDS["accepted"].colour, KINDS["accepted"].tint, ""),
    "rejected": (KINDS["rejected"].colour, KINDS["rejected"].tint, "x"),
    "never judged": (GREY, PAPER, "."),
}


def verdicts_by_position(verdicts: Verdicts, sampled: bool = True) -> go.Figure:
    """The bars. Arguments as for `verdicts_parts`."""
    import plotly.graph_objects as go

    return go.Figure(verdicts_parts(verdicts, sampled), layout_template=template())


def verdicts_parts(verdicts: Verdicts, sampled: bool = True, places: int | None = None) -> dict[str, Any]:
    """The picture as plain data and layout.

    Args:
        verdicts: counts of a run, or expected ones.
        sampled: whether they are counts, so that rates get a 95% interval.
        places: positions to make room for (default: as many as there are).
    """
    x = list(range(1, len(verdicts.drafted) + 1))
    parts: dict[str, list[float]] = {name: [] for name in LOOKS}
    for drafted, judged, accepted in zip(verdicts.drafted, verdicts.judged, verdicts.accepted, strict=True):
        for name, count in zip(LOOKS, (accepted, judged - accepted, drafted - judged), strict=True):
            parts[name].append(count / drafted if drafted else 0.0)
    data, base = [], [0.0] * len(x)
    for name, shares in parts.items():
        data.append(_bar(name, x, shares, base))
        base = [b + share for b, share in zip(base, shares, strict=True)]
    data.append(_rates(verdicts, x, sampled))
    layout = dict(
        height=380,
        barmode="overlay",
        margin=dict(t=24, b=104),
        xaxis=dict(title=dict(text="position in the draft"), dtick=1, range=[0.4, (places or len(x)) + 0.6]),
        yaxis=dict(title=dict(text="share of the drafts"), range=[0, 1.02]),
        legend=dict(y=-0.24, entrywidth=136),
        meta=dict(alt=verdicts_sentence(verdicts)),
    )
    return dict(data=data, layout=layout)


def verdicts_sentence(verdicts: Verdicts) -> str:
    """What the bars show, in words."""
    first, last = (_told(verdicts, i) for i in (0, len(verdicts.drafted) - 1))
    return f"Position 1: {first}. Position {len(verdicts.drafted)}: {last}."


def _told(verdicts: Verdicts, i: int) -> str:
    drafted, judged, accepted = verdicts.drafted[i], verdicts.judged[i], verdicts.accepted[i]
    honest = f"{accepted / judged:.2f} of the judged ones" if judged else "none was judged"
    return f"{accepted / drafted:.2f} of the drafts accepted, {honest}"


def _bar(name: str, x: list[int], shares: list[float], base: list[float]) -> dict[str, Any]:
    colour, ground, shape = LOOKS[name]
    edge = RULE if name == "never judged" else colour
    pattern = dict(shape=shape, fgcolor=colour, bgcolor=ground, size=8, solidity=0.18)
    return dict(
        type="bar", name=name, uid=uid("verdicts", name), x=x, y=[round(each, 5) for each in shares], width=WIDTH,
        base=[round(each, 5) for each in base], hoverinfo="text",
        text=[f"{each:.2f}" if each >= SMALLEST_LABEL and name == "accepted" else "" for each in shares],
        textposition="inside", insidetextanchor="start", textangle=0, textfont=dict(color=INK, size=12),
        hovertext=[f"position {i}: {each:.3f} {name}" for i, each in zip(x, shares, strict=True)],
        marker=dict(color=ground, line=dict(color=edge, width=1.5), pattern=pattern),
    )  # fmt: skip


def _rates(verdicts: Verdicts, x: list[int], sampled: bool) -> dict[str, Any]:
    """Accepted over judged: a diamond, with Wilson's interval where it was counted."""
    rates = [round(each, 5) if each == each else None for each in verdicts.rates]
    up, down = [0.0] * len(x), [0.0] * len(x)
    if sampled:
        for i, (accepted, judged) in enumerate(zip(verdicts.accepted, verdicts.judged, strict=True)):
            if judged:
                about = estimate_acceptance(round(accepted), round(judged))
                up[i], down[i] = round(about.high - about.value, 5), round(about.value - about.low, 5)
    bars = dict(type="data", array=up, arrayminus=down, color=INK, thickness=1.5, width=5, visible=sampled)
    judged = [f"{count:,.0f} judged" for count in verdicts.judged]
    return dict(
        type="scatter", mode="markers", name="accepted over judged" + ", 95%" * sampled, uid=uid("verdicts", "rate"),
        x=x, y=rates, error_y=bars, text=judged, hovertemplate="position %{x}: %{y:.3f}, %{text}<extra></extra>",
        marker=dict(symbol="diamond", size=11, color=INK, line=dict(color=PAPER, width=1.5)),
    )  # fmt: skip


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
