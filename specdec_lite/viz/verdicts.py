"""What became of the drafts, position by position: a bar for each, in three parts, and the rate among the judged.

The lowest part alone over the whole bar is accepted over drafted; it over the two lower parts is
accepted over judged. So the misleading metric and the honest one can be read off the same bars.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..theory.formulas import estimate_acceptance
from ..theory.verdicts import Verdicts
from .theme import GREY, INK, KINDS, PAPER, RULE, template, uid

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
