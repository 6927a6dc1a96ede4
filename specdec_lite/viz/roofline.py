"""The roofline: what a machine can give, and where passes over 1, 2, 4 ... rows come to lie under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from .theme import BLUE, GREY, INK, PAPER, VERMILLION, template, uid

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from ..bench.models_under_test import Subject

LOOKS = ((BLUE, "circle", "solid"), (VERMILLION, "diamond", "dash"))  # of the engines, apart without colour too


@dataclass(frozen=True)
class Series:
    """One engine's passes: for each number of rows, operations a byte, and operations a second."""

    name: str
    rows: Sequence[int]
    intensity: Sequence[float]
    measured: Sequence[float]
    predicted: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """One model under the roof of the machine as it ran there."""

    title: str
    bandwidth: float  # bytes a second
    throughput: float  # operations a second
    series: Sequence[Series]

    @property
    def ridge(self) -> float:
        """Operations a byte at which the slope meets the ceiling."""
        return self.throughput / self.bandwidth


def panel(subject: Subject) -> Panel:
    """The subject for the picture."""
    series = []
    for each in subject.passes.values():
        rows = each.rows
        works = [each.shape.work(n, each.context) for n in rows]
        measured = [work.flops / each.seconds(n).median for n, work in zip(rows, works, strict=True)]
        predicted = [work.flops / each.predicted(n) for n, work in zip(rows, works, strict=True)]
        series.append(Series(f"{each.engine} engine", rows, [work.intensity for work in works], measured, predicted))
    ceiling = subject.best.ceiling
    return Panel(subject.name, ceiling.bandwidth, ceiling.throughput, series)


def roofline_figure(panels: Sequence[Panel]) -> go.Figure:
    """A panel for each model, both axes logarithmic: full marks measured, hollow ones predicted."""
    from plotly.subplots import make_subplots

    figure = make_subplots(
        cols=len(panels), subplot_titles=[panel.title for panel in panels], horizontal_spacing=0.09, shared_yaxes=True
    )
    for column, panel in enumerate(panels, 1):
        figure.add_trace(_roof(panel, _span(panels), column == 1), row=1, col=column)
        for series, look in zip(panel.series, LOOKS, strict=False):
            for hollow in (True, False):
                figure.add_trace(_passes(panel, series, look, hollow, column == 1), row=1, col=column)
        figure.add_annotation(_ridge(panel, column))
    figure.update_xaxes(type="log", title="operations a byte", dtick=1)
    figure.update_yaxes(type="log", dtick=1)
    figure.update_yaxes(title="10⁹ operations a second", col=1)
    figure.update_layout(
        template=template(), height=460, margin=dict(t=48, b=112, l=64),
        legend=dict(y=-0.22, entrywidth=190), meta=dict(alt=roofline_sentence(panels)),
    )  # fmt: skip
    return figure


def _span(panels: Sequence[Panel]) -> tuple[float, float]:
    """The part of the horizontal axis that is shown."""
    every = [x for panel in panels for series in panel.series for x in (*series.intensity, panel.ridge)]
    return min(every) / 2, max(every) * 3


def _roof(panel: Panel, span: tuple[float, float], legend: bool) -> go.Scatter:
    import plotly.graph_objects as go

    x = [span[0], panel.ridge, span[1]]
    y = [min(panel.bandwidth * each, panel.throughput) / 1e9 for each in x]
    return go.Scatter(
        x=x, y=y, mode="lines", name="what the machine gives", uid=uid("roof", panel.title), showlegend=legend,
        line=dict(color=INK, width=2), hoverinfo="skip",
    )  # fmt: skip


def _passes(panel: Panel, series: Series, look: tuple[str, str, str], hollow: bool, legend: bool) -> go.Scatter:
    import plotly.graph_objects as go

    colour, symbol, dash = look
    name = f"{series.name}, {'predicted' if hollow else 'measured'}"
    y = series.predicted if hollow else series.measured
    return go.Scatter(
        x=list(series.intensity), y=[each / 1e9 for each in y], name=name, uid=uid("passes", panel.title, name),
        showlegend=legend, mode="markers" if hollow else "lines+markers+text",
        line=dict(color=colour, dash=dash, width=1.5), text=[str(n) for n in series.rows],
        textposition="bottom right", textfont=dict(color=colour, size=11),
        hovertemplate="%{text} rows: %{y:.2f}<extra>" + name + "</extra>",
        marker=dict(symbol=symbol, size=11 if hollow else 8, color=PAPER if hollow else colour,
                    line=dict(color=colour, width=1.5)),
    )  # fmt: skip


def _ridge(panel: Panel, column: int) -> dict:
    from math import log10

    axes = dict(xref=f"x{column if column > 1 else ''}", yref=f"y{column if column > 1 else ''}")
    return axes | dict(
        x=log10(panel.ridge), y=log10(panel.throughput / 1e9), text=f"ridge: {panel.ridge:.1f}", showarrow=True,
        arrowcolor=GREY, ax=-30, ay=-24, font=dict(size=12, color=INK),
    )  # fmt: skip


def roofline_sentence(panels: Sequence[Panel]) -> str:
    """What the figure shows, in words and numbers."""
    parts = []
    for panel in panels:
        told = [
            f"{panel.title}, under {panel.bandwidth / 1e9:.1f} GB/s and {panel.throughput / 1e9:.0f} GFLOP/s, "
            f"which meet at {panel.ridge:.1f} operations a byte"
        ]
        for each in panel.series:
            reached = [got / wanted for got, wanted in zip(each.measured, each.predicted, strict=True)]
            told.append(
                f"{each.name}: {each.rows[0]} row{'s' * (each.rows[0] > 1)} {each.measured[0] / 1e9:.1f} GFLOP/s "
                f"({reached[0]:.0%} of the prediction), {each.rows[-1]} rows {each.measured[-1] / 1e9:.1f} "
                f"({reached[-1]:.0%})"
            )
        parts.append("; ".join(told))
    return ". ".join(parts) + "."


def save(figure: go.Figure, path: str) -> str:
    """Write a picture where one can be drawn, else a page. -> a sentence that says what was written, and why."""
    file = Path(path)
    if file.suffix.lower() in (".html", ".htm"):
        figure.write_html(file)
        return f"The picture is in {path}."
    why = "kaleido is not installed, which draws them"
    if find_spec("kaleido"):
        try:
            figure.write_image(file, width=1100, height=480, scale=2)
            return f"The picture is in {path}."
        except Exception as error:  # it needs a browser, and has many ways to say that it found none
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
    page = file.with_suffix(".html")
    figure.write_html(page)
    return f"The picture is in {page}, as a page and not as {file.suffix or 'an image'}: {why}."
