"""What passes over more and more rows take: predicted, and measured beside it."""

from __future__ import annotations

from collections.abc import Mapping
from math import log2, log10
from typing import TYPE_CHECKING

from ..bench.roofline_model import Ceiling, Shape
from .theme import BLUE, GREY, INK, ORANGE, PAPER, VERMILLION, template, uid

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from ..bench.passes import Passes

LOOKS = {"eager": (BLUE, "circle", "solid"), "lean": (VERMILLION, "diamond", "dash")}


def two_needs(shape: Shape, ceiling: Ceiling, most: int = 2048) -> go.Figure:
    """Memory's time and arithmetic's time over the number of rows, in a dense model's linear layers.

    Attention comes on top and depends on the text, so it is left out.
    """
    import plotly.graph_objects as go

    rows = [2 ** (i / 4) for i in range(int(4 * log2(most)) + 1)]
    parts = [_needs(shape, ceiling, n) for n in rows]
    memory, arithmetic = ([1000 * each[name] for each in parts] for name in ("memory", "arithmetic"))
    longer = [max(pair) for pair in zip(memory, arithmetic, strict=True)]
    figure = go.Figure()
    for name, y, look in (
        ("the longer one decides", longer, dict(color="#D9D9D9", width=11)),
        ("reading the weights", memory, dict(color=BLUE, width=2.5)),
        ("arithmetic", arithmetic, dict(color=ORANGE, width=2.5, dash="dash")),
    ):
        figure.add_trace(
            go.Scatter(
                x=[float(f"{n:.5g}") for n in rows], y=[float(f"{each:.5g}") for each in y], name=name, mode="lines",
                line=look, uid=uid("needs", name), hovertemplate="%{x:.0f} rows: %{y:.3g} ms",
            )
        )  # fmt: skip
    met = meeting(shape, ceiling)
    level = 1000 * _needs(shape, ceiling, 1)["memory"]
    arrow = dict(showarrow=True, arrowcolor=GREY, arrowhead=0, font=dict(size=12, color=INK), bgcolor=PAPER)
    for n, text, shift in (
        (1, "1 row: a decoding step", (62, 44)),
        (5, "5 rows: verification of K = 4", (30, -38)),
        (met, f"the ridge: {met:,} rows", (-40, -60)),
    ):
        figure.add_annotation(x=log10(n), y=log10(level), text=text, ax=shift[0], ay=shift[1], **arrow)
    log = dict(type="log", exponentformat="none")
    figure.update_xaxes(log | dict(title="rows of a forward: tokens that are judged together", dtick=log10(4)))
    figure.update_yaxes(log | dict(title="milliseconds, at least", dtick=1))
    figure.update_layout(template=template(), height=380, margin=dict(t=20, b=96), legend=dict(y=-0.24, entrywidth=190))
    figure.update_layout(meta=dict(alt=needs_sentence(shape, ceiling)))
    return figure


def _needs(shape: Shape, ceiling: Ceiling, rows: float) -> dict[str, float]:
    """Seconds that the linear layers of a dense model need for so many rows, or between two whole numbers."""
    return {
        "memory": (shape.weight_bytes + rows * shape.row_bytes) / ceiling.bandwidth,
        "arithmetic": 2 * rows * shape.multiplied / ceiling.throughput,
    }


def meeting(shape: Shape, ceiling: Ceiling) -> int:
    """The last number of rows whose arithmetic takes no longer than reading the weights."""
    rows = 1
    while (needs := _needs(shape, ceiling, rows + 1))["memory"] >= needs["arithmetic"]:
        rows += 1
    return rows


def needs_sentence(shape: Shape, ceiling: Ceiling) -> str:
    """What `two_needs` shows, in words."""
    one = {name: 1000 * took for name, took in _needs(shape, ceiling, 1).items()}
    return (
        f"One row needs {one['memory']:.2f} ms for reading the weights and {one['arithmetic']:.3f} ms for arithmetic. "
        f"Reading stays level, arithmetic rises with the rows and takes longer from {meeting(shape, ceiling) + 1} on."
    )


def pass_times(timed: Mapping[str, Mapping[str, Passes]]) -> go.Figure:
    """A panel for each model, a line for each engine: full marks measured, hollow ones predicted."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(cols=len(timed), subplot_titles=list(timed), horizontal_spacing=0.1)
    for column, (model, engines) in enumerate(timed.items(), 1):
        for engine, passes in engines.items():
            colour, symbol, dash = LOOKS[engine]
            for hollow in (False, True):
                y = [passes.predicted(n) if hollow else passes.seconds(n).median for n in passes.rows]
                name = f"{engine}, {'predicted' if hollow else 'measured'}"
                marker = dict(
                    symbol=symbol, size=9, color=PAPER if hollow else colour, line=dict(color=colour, width=2)
                )
                line = dict(color=colour, dash="dot" if hollow else dash, width=1 if hollow else 2)
                figure.add_trace(
                    go.Scatter(
                        x=[str(n) for n in passes.rows], y=[round(1000 * each, 3) for each in y], name=name,
                        uid=uid("times", model, name), mode="lines+markers", marker=marker, line=line,
                        showlegend=column == 1, hovertemplate="%{x} rows: %{y:.2f} ms",
                    ), row=1, col=column,
                )  # fmt: skip
    figure.update_xaxes(title="rows of a forward", type="category")
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title="milliseconds", col=1)
    figure.update_annotations(font_size=13)
    figure.update_layout(
        template=template(), height=390, margin=dict(t=44, b=104), legend=dict(y=-0.26, entrywidth=140),
        meta=dict(alt=times_sentence(timed)),
    )  # fmt: skip
    return figure


def times_sentence(timed: Mapping[str, Mapping[str, Passes]]) -> str:
    """What `pass_times` shows, in words."""
    told = []
    for model, engines in timed.items():
        for engine, passes in engines.items():
            last = passes.rows[-1]
            told.append(
                f"{model}, {engine} engine: 1 row {1000 * passes.seconds(1).median:.1f} ms "
                f"(predicted {1000 * passes.predicted(1):.1f}), {last} rows {1000 * passes.seconds(last).median:.1f} "
                f"(predicted {1000 * passes.predicted(last):.1f})"
            )
    return "; ".join(told) + "."


def pass_table(engines: Mapping[str, Passes]) -> str:
    """The same as a table for one model: what it takes, what was predicted, both in passes over one row."""
    lines = []
    for engine, passes in engines.items():
        lines.append(
            f"{engine + ' engine':14}{'ms':>8}{'predicted':>11}{'in 1-row forwards':>19}{'predicted':>11}"
            "  predicted to wait for"
        )
        for n in passes.rows:
            took, foreseen = 1000 * passes.seconds(n).median, 1000 * passes.predicted(n)
            ratios = f"{passes.ratio(n).median:19.2f}{passes.predicted(n) / passes.predicted(1):11.2f}"
            cause = passes.ceiling.waits_for(passes.shape.work(n, passes.context))
            lines.append(f"{n:5} row{'s' * (n > 1):5}{took:8.1f}{foreseen:11.1f}{ratios}  {cause}")
    return "\n".join(lines)
