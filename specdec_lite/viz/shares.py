"""Groups side by side: the mean of each, how sure it is, and over how many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .theme import BLUE, GREY, INK, template, uid

if TYPE_CHECKING:
    import plotly.graph_objects as go


def shares(groups: Mapping[str, Sequence[float]], x: str) -> go.Figure:
    """A mark for each group at its mean, with twice its standard error, and the mean of all as a line.

    Args:
        groups: numbers between 0 and 1, by group, at least two in each.
        x: what they are.
    """
    import plotly.graph_objects as go

    names, everything = list(groups), [each for values in groups.values() for each in values]
    means = [round(mean(values), 4) for values in groups.values()]
    sure = [round(2 * error(values), 4) for values in groups.values()]
    middle = round(mean(everything), 4)
    figure = go.Figure(layout_template=template())
    figure.add_scatter(
        x=[middle, middle], y=[-0.6, len(names) - 0.4], mode="lines", name=f"all {len(everything):,}: {middle:.2f}",
        uid=uid("shares", "all"), line=dict(color=GREY, dash="dot", width=1.5), hoverinfo="skip",
    )  # fmt: skip
    figure.add_scatter(
        x=means, y=list(range(len(names))), mode="markers", name="mean, and twice its standard error",
        uid=uid("shares", "groups"), marker=dict(symbol="diamond", size=11, color=BLUE),
        hovertemplate="%{x:.3f}<extra></extra>",
        error_x=dict(type="data", array=sure, color=INK, thickness=1.5, width=5),
    )  # fmt: skip
    ticks = [f"{name} ({len(values):,})" for name, values in groups.items()]
    figure.update_layout(
        height=190 + 34 * len(names), margin=dict(t=20, b=96, l=170),
        legend=dict(yref="container", y=0.0, yanchor="bottom"),
        meta=dict(alt=shares_sentence(groups)),
    )  # fmt: skip
    lowest = min(m - s for m, s in zip(means, sure, strict=True))
    figure.update_xaxes(title=x, range=[max(0, round(lowest - 0.05, 1)), 1.01])
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=ticks, range=[len(names) - 0.4, -0.6], title=None)
    return figure


def shares_sentence(groups: Mapping[str, Sequence[float]]) -> str:
    """The same in words."""
    return "; ".join(f"{name} {mean(values):.2f} of {len(values):,}" for name, values in groups.items()) + "."


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def error(values: Sequence[float]) -> float:
    """The standard error of the mean."""
    middle = mean(values)
    return (sum((each - middle) ** 2 for each in values) / (len(values) - 1) / len(values)) ** 0.5
