"""The area picture of acceptance: what two distributions share, what is missing, what is too much.

Left, both distributions as one stack a token: the shared part, and on it either what the target has
left (the residual) or what the draft has too much of. Right, what the rule writes: drafted and
kept, and on it the corrections, up to the target's level when the rule is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .theme import BLUE, GREEN, INK, KINDS, ORANGE, PAPER, template, uid

if TYPE_CHECKING:
    import plotly.graph_objects as go

WIDTH = 0.62  # of a bar, in tokens
SMALLEST_LABEL = 0.045  # a lower part has no room for its number
SHARED_TINT = "#A9DFCD"  # green, darker than the theme's tint: it lies beside white


def overlap_picture(
    p_target: Sequence[float],
    p_draft: Sequence[float],
    names: Sequence[str],
    correction: Sequence[float] | None = None,
    counts: Sequence[int] | None = None,
) -> go.Figure:
    """Two panels, told apart without colour. Arguments as for `overlap_parts`."""
    import plotly.graph_objects as go

    return go.Figure(overlap_parts(p_target, p_draft, names, correction, counts), layout_template=template())


def overlap_parts(
    p_target: Sequence[float],
    p_draft: Sequence[float],
    names: Sequence[str],
    correction: Sequence[float] | None = None,
    counts: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The picture as plain data and layout; every pair of distributions gives traces of the same make.

    Args:
        p_target, p_draft: probabilities, one for each token.
        names: what stands under the bars.
        correction: where the replacement of a rejected token is drawn from; default, the residual.
        counts: how often each token was written so far, shown as diamonds.
    """
    shared = [min(t, d) for t, d in zip(p_target, p_draft, strict=True)]
    missing = [t - s for t, s in zip(p_target, shared, strict=True)]
    surplus = [d - s for d, s in zip(p_draft, shared, strict=True)]
    rejected = sum(surplus)
    corrected = missing if correction is None else [rejected * each for each in correction]
    off = sum(abs(s + c - t) for s, c, t in zip(shared, corrected, p_target, strict=True)) / 2
    drawn = [count / max(1, sum(counts)) for count in counts] if counts and sum(counts) else []
    data = [
        _bar("drafted and kept: the overlap", shared, names, 1),
        _bar("residual: the target's, still missing", missing, names, 1, under=shared),
        _bar("rejected: the draft's, too much", surplus, names, 1, under=shared),
        _level("p_target", p_target, 1),
        _level("p_draft", p_draft, 1),
        _bar("kept", shared, names, 2),
        _bar("corrected", corrected, names, 2, under=shared),
        _level("p_target again", p_target, 2),
        _diamonds(drawn, counts is not None),
    ]
    top = max(0.5, *p_target, *p_draft, *(s + c for s, c in zip(shared, corrected, strict=True)), *drawn)
    ticks = dict(tickvals=list(range(len(names))), ticktext=list(names), range=[-0.5, len(names) - 0.5], ticks="")
    heads = (
        f"<b>What is proposed</b>: overlap {sum(shared):.2f}, rejected {rejected:.2f}",
        f"<b>What is written</b>: {sum(shared):.2f} kept + {sum(corrected):.2f} corrected, "
        + (f"off by {off:.3f}" if off > 5e-4 else "exact"),
    )
    layout = dict(
        height=380,
        barmode="overlay",
        margin=dict(t=40, b=84, l=48, r=12),
        xaxis=ticks | dict(domain=[0, 0.48]),
        xaxis2=ticks | dict(domain=[0.52, 1], anchor="y2"),
        yaxis=dict(range=[0, round(1.08 * top, 2)], title=dict(text="probability")),
        yaxis2=dict(range=[0, round(1.08 * top, 2)], anchor="x2", showticklabels=False),
        annotations=[_head(heads[0], 0), _head(heads[1], 0.52)],
        legend=dict(y=-0.12, entrywidth=222),
        meta=dict(alt=overlap_sentence(p_target, p_draft, names)),
    )
    return dict(data=data, layout=layout)


def overlap_sentence(p_target: Sequence[float], p_draft: Sequence[float], names: Sequence[str]) -> str:
    """What the picture shows, in words and numbers."""
    shared = sum(map(min, p_target, p_draft))
    missing = [max(0.0, t - d) for t, d in zip(p_target, p_draft, strict=True)]
    if sum(missing) < 1e-9:
        return "The two distributions are equal: overlap 1.00, nothing is ever rejected."
    left = ", ".join(f"{name} {each / sum(missing):.2f}" for name, each in zip(names, missing, strict=True) if each > 0)
    return f"Overlap {shared:.2f}: a draft is kept with this chance. Rejected {1 - shared:.2f}; residual: {left}."


LOOKS = {  # colour of the line and the pattern, colour of the ground, pattern
    "kept": (GREEN, SHARED_TINT, ""),
    "missing": (KINDS["corrected"].colour, KINDS["corrected"].tint, "/"),
    "surplus": (KINDS["rejected"].colour, KINDS["rejected"].tint, "x"),
}


def _bar(
    name: str, heights: Sequence[float], names: Sequence[str], panel: int, under: Sequence[float] | None = None
) -> dict[str, Any]:
    """A part of every token's stack."""
    colour, ground, shape = LOOKS[
        "surplus" if name.startswith("rejected") else "missing" if name.startswith(("residual", "corr")) else "kept"
    ]
    pattern = dict(shape=shape, fgcolor=colour, bgcolor=ground, size=9, solidity=0.16)
    return dict(
        type="bar", name=name, uid=uid("overlap", name), x=list(range(len(heights))), width=WIDTH,
        y=[round(each, 6) if each > 1e-9 else None for each in heights],  # a bar of no height would show its outline
        base=[round(each, 6) for each in under or [0.0] * len(heights)],
        text=[f"<b>{each:.2f}</b>" if each >= SMALLEST_LABEL else "" for each in heights], textposition="inside",
        insidetextanchor="middle", textangle=0, textfont=dict(color=INK, size=12), hoverinfo="text",
        hovertext=[f"{token}: {name} {each:.3f}" for token, each in zip(names, heights, strict=True)],
        marker=dict(color=ground, line=dict(color=colour, width=1.5), pattern=pattern), showlegend=panel == 1,
        xaxis="x" if panel == 1 else "x2", yaxis="y" if panel == 1 else "y2",
    )  # fmt: skip


def _level(name: str, heights: Sequence[float], panel: int) -> dict[str, Any]:
    """A line across each token's stack: solid for the target, dashed and a little wider for the draft."""
    draft = name == "p_draft"
    half = 0.47 if draft else 0.43
    x = [each for i in range(len(heights)) for each in (i - half, i + half, None)]
    y = [each for height in heights for each in (round(height, 6), round(height, 6), None)]
    line = dict(color=ORANGE, width=3, dash="6px,3px") if draft else dict(color=BLUE, width=3)
    words = {"p_target": "p_target, solid line", "p_draft": "p_draft, dashed line"}
    return dict(
        type="scatter", mode="lines", name=words.get(name, name), uid=uid("overlap", name), x=x, y=y, line=line,
        showlegend=name in words, hoverinfo="skip", connectgaps=False,
        xaxis="x" if panel == 1 else "x2", yaxis="y" if panel == 1 else "y2",
    )  # fmt: skip


def _diamonds(drawn: Sequence[float], told: bool) -> dict[str, Any]:
    """How often each token was written so far."""
    marker = dict(symbol="diamond", size=10, color=INK, line=dict(color=PAPER, width=1.5))
    return dict(
        type="scatter", mode="markers", name="share of the draws so far", uid=uid("overlap", "draws"),
        x=list(range(len(drawn))) or [None], y=[round(each, 6) for each in drawn] or [None], marker=marker,
        hovertemplate="%{y:.3f} of the draws<extra></extra>", xaxis="x2", yaxis="y2", showlegend=told,
    )  # fmt: skip


def _head(text: str, x: float) -> dict[str, Any]:
    place = dict(x=x, y=1.02, xref="paper", yref="paper", xanchor="left", yanchor="bottom")
    return place | dict(text=text, showarrow=False, font=dict(size=14))
