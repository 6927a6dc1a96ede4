"""A round's budget: what each part was predicted to take beside what it took, and what each K promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .theme import BLUE, GREY, INK, PAPER, VERMILLION, template, uid

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from ..bench.diagnosis import Diagnosis

PARTS = ("draft", "verify", "sample", "synchronise", "rest")


def budget_figure(found: Diagnosis) -> go.Figure:
    """Left the parts of a round, hatched predicted and full measured; right the speed-up over K."""
    from plotly.subplots import make_subplots

    k = found.measured.k
    titles = (f"A round at K = {k}, milliseconds", "Times as fast as naive, for each K")
    figure = make_subplots(cols=2, subplot_titles=titles, horizontal_spacing=0.12)
    sides = (("predicted", found.forecast.outlooks[k].round), ("measured", found.measured.round))
    for name, parts in sides:
        figure.add_trace(_bars(name, parts), row=1, col=1)
    for trace in (_band(found), _line(found), _clock(found)):
        figure.add_trace(trace, row=1, col=2)
    figure.add_hline(y=1, line=dict(color=GREY, dash="dot", width=1), row=1, col=2)
    figure.update_layout(
        template=template(), height=400, barmode="group", bargap=0.35, bargroupgap=0.08,
        margin=dict(t=48, b=104, l=96), legend=dict(y=-0.24, entrywidth=150), meta=dict(alt=budget_sentence(found)),
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", row=1, col=1)
    figure.update_xaxes(rangemode="tozero", row=1, col=1)
    figure.update_xaxes(title="K, tokens drafted a round", dtick=1, row=1, col=2)
    figure.update_yaxes(rangemode="tozero", row=1, col=2)
    figure.update_annotations(font_size=13)
    return figure


def _bars(name: str, parts: dict[str, float]) -> go.Bar:
    import plotly.graph_objects as go

    values = [round(1000 * parts[part], 3) for part in PARTS]
    full = name == "measured"
    marker = dict(color=BLUE if full else PAPER, line=dict(color=BLUE if full else VERMILLION, width=1.5))
    if not full:
        marker["pattern"] = dict(shape="/", fgcolor=VERMILLION, bgcolor=PAPER, size=6)
    return go.Bar(
        x=values, y=list(PARTS), orientation="h", name=f"{name} ({'full' if full else 'hatched'})",
        uid=uid("budget", name), marker=marker, text=[f"{value:.2f}" for value in values], textposition="outside",
        cliponaxis=False, hovertemplate="%{y}: %{x:.2f} ms",
    )  # fmt: skip


def _band(found: Diagnosis) -> go.Scatter:
    """Where each prediction lies with 95 % confidence."""
    import plotly.graph_objects as go

    every = list(found.forecast.outlooks.values())
    ks = [each.k for each in every]
    low, high = ([round(getattr(each.speed_up, end), 3) for each in every] for end in ("low", "high"))
    return go.Scatter(
        x=ks + ks[::-1], y=high + low[::-1], fill="toself", mode="lines", line=dict(width=0),
        fillcolor="rgba(213, 94, 0, 0.16)", name="95 % of the prediction", uid=uid("budget", "band"), hoverinfo="skip",
    )  # fmt: skip


def _line(found: Diagnosis) -> go.Scatter:
    import plotly.graph_objects as go

    every = list(found.forecast.outlooks.values())
    return go.Scatter(
        x=[each.k for each in every], y=[round(each.speed_up.value, 3) for each in every], mode="lines+markers",
        name="predicted", uid=uid("budget", "line"), line=dict(color=VERMILLION, dash="dash"),
        marker=dict(symbol="circle-open", size=8), hovertemplate="K = %{x}: %{y:.2f} predicted",
    )  # fmt: skip


def _clock(found: Diagnosis) -> go.Scatter:
    import plotly.graph_objects as go

    made = found.measured
    at = made.speed_up
    ends = dict(array=[at.high - at.median], arrayminus=[at.median - at.low], symmetric=False, color=INK)
    return go.Scatter(
        x=[made.k], y=[round(at.median, 3)], mode="markers", name="measured", uid=uid("budget", "clock"),
        marker=dict(symbol="diamond", size=11, color=BLUE, line=dict(color=INK, width=1)), error_y=ends,
        hovertemplate="K = %{x}: %{y:.2f} by the clock",
    )  # fmt: skip


def budget_sentence(found: Diagnosis) -> str:
    """What the figure shows, in words."""
    made, said = found.measured, found.forecast.outlooks[found.measured.k]
    whole = {name: 1000 * sum(parts[p] for p in PARTS) for name, parts in (("p", said.round), ("m", made.round))}
    largest = max(PARTS, key=lambda part: made.round[part])
    return (
        f"A round at K = {made.k} was predicted to take {whole['p']:.2f} ms and took {whole['m']:.2f}; "
        f"its largest part is '{largest}', with {1000 * made.round[largest]:.2f} ms. Speculation was predicted to be "
        f"{said.speed_up.value:.2f} times as fast as naive decoding and was {made.speed_up.median:.2f} times."
    )


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
