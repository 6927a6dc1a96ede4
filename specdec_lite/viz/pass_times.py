"""What passes over more and more rows take: predicted, and measured beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log2, log10
from typing import TYPE_CHECKING

from ..bench.growth import Growth
from ..bench.roofline_model import Ceiling, Shape
from .theme import BLUE, GREEN, GREY, INK, ORANGE, PAPER, PURPLE, VERMILLION, template, uid

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from ..bench.passes import Passes

ENGINE_LOOKS = {"eager": (BLUE, "circle", "solid"), "lean": (VERMILLION, "diamond", "dash")}


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
            colour, symbol, dash = ENGINE_LOOKS[engine]
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


LOOKS = ((BLUE, "circle", "solid"), (VERMILLION, "diamond", "dash"), (GREEN, "square", "dot"), (PURPLE, "x", "dashdot"))
CONTEXTS = tuple(2**power for power in range(10, 18))  # 1,024 to 131,072 tokens


def step_growth(times: Growth) -> go.Figure:
    """Milliseconds for the next token over the length of the text."""
    import plotly.graph_objects as go

    lengths = list(times.cached)
    figure = go.Figure(layout=dict(template=template(), height=360, margin=dict(t=24, b=92)))
    for name, seconds, look in (
        ("without a cache: every token fed again", times.whole, LOOKS[1]),
        ("with a cache: one token fed", times.cached, LOOKS[0]),
    ):
        _line(figure, name, lengths, [round(1000 * seconds[n], 2) for n in lengths], look)
    figure.update_xaxes(title="tokens in the text", rangemode="tozero")
    figure.update_yaxes(title="milliseconds for the next token", rangemode="tozero")
    last = lengths[-1]
    figure.update_layout(
        legend=dict(y=-0.22, entrywidth=280),
        meta=dict(
            alt=f"The next token of a text of {last:,} tokens took {1000 * times.cached[last]:.1f} ms with a cache and "
            f"{1000 * times.whole[last]:.1f} ms without; after {lengths[0]} tokens it was "
            f"{1000 * times.cached[lengths[0]]:.1f} and {1000 * times.whole[lengths[0]]:.1f} ms."
        ),
    )
    return figure


def cache_growth(bytes_a_token: int, weight_bytes: int, batches: Sequence[int] = (1, 4, 16, 64)) -> go.Figure:
    """Gigabytes of the cache over the length of the texts, for several batches, beside the weights. Both axes double.

    Args:
        bytes_a_token: keys and values of one token in all layers.
        weight_bytes: what the weights take.
        batches: how many texts at once.
    """
    import plotly.graph_objects as go

    figure = go.Figure(layout=dict(template=template(), height=400, margin=dict(t=24, b=110)))
    for batch, look in zip(batches, LOOKS, strict=False):
        name = "1 text" if batch == 1 else f"{batch} texts"
        _line(figure, name, CONTEXTS, [round(batch * n * bytes_a_token / 1e9, 4) for n in CONTEXTS], look)
    figure.add_scatter(
        x=[CONTEXTS[0], CONTEXTS[-1]], y=[round(weight_bytes / 1e9, 4)] * 2, name="the weights", mode="lines",
        uid=uid("growth", "weights"), line=dict(color=GREY, width=4), hovertemplate="the weights: %{y:.1f} GB",
    )  # fmt: skip
    figure.update_xaxes(
        title="tokens in each text", type="log", tickvals=list(CONTEXTS), ticktext=[f"{n:,}" for n in CONTEXTS]
    )
    figure.update_yaxes(
        title="gigabytes", type="log", tickvals=[0.1, 1, 10, 100, 1000], ticktext=["0.1", 1, 10, 100, "1,000"]
    )
    full = weight_bytes // (bytes_a_token * max(batches))
    figure.update_layout(
        legend=dict(y=-0.2, entrywidth=110),
        meta=dict(
            alt=f"The cache of one text of {CONTEXTS[-1]:,} tokens takes {CONTEXTS[-1] * bytes_a_token / 1e9:.1f} GB, "
            f"the weights {weight_bytes / 1e9:.1f} GB. {max(batches)} texts need as much as the weights "
            f"at {full:,} tokens each."
        ),
    )
    return figure


def _line(figure: go.Figure, name: str, x: Sequence[int], y: Sequence[float], look: tuple[str, str, str]) -> None:
    colour, symbol, dash = look
    figure.add_scatter(
        x=list(x), y=list(y), name=name, mode="lines+markers", uid=uid("growth", name),
        line=dict(color=colour, dash=dash, width=2), marker=dict(color=colour, symbol=symbol, size=8),
        hovertemplate="%{x:,} tokens: %{y:.3g}",
    )  # fmt: skip
