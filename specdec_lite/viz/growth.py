"""Two costs that grow with the text: the time of a step with and without a cache, and the bytes of the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..bench.text_growth import Growth
from .theme import BLUE, GREEN, GREY, PURPLE, VERMILLION, template, uid

if TYPE_CHECKING:
    import plotly.graph_objects as go

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
