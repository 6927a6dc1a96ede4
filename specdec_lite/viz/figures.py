"""Pure functions from data to a plotly figure; each carries a sentence that says what it shows.

`race` and the coloured tokens have files of their own, `timeline.py` and `tokens.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..pocket.recorded import Recorded
from .theme import BLUE, GREY, PAPER, VERMILLION, template, uid
from .timeline import race_parts

if TYPE_CHECKING:
    import plotly.graph_objects as go

SERIES = ((BLUE, "circle", "solid"), (VERMILLION, "diamond", "dash"))


def k_sweep(recordings: Sequence[Recorded]) -> go.Figure:
    """Tokens a round, and how many times as fast as naive, for every k that was recorded."""
    from plotly.subplots import make_subplots

    titles = ("Tokens in one target forward", "Times as fast as naive: line predicted, hollow by the clock")
    figure = make_subplots(cols=2, subplot_titles=titles, horizontal_spacing=0.09)
    figure.update_layout(
        template=template(), height=380, margin=dict(t=48, b=104, l=48), meta=dict(alt=sweep_sentence(recordings))
    )
    for recorded, look in zip(recordings, SERIES, strict=False):
        ks = list(recorded.runs)
        tokens = [round(recorded.tokens_per_round(k), 3) for k in ks]
        predicted = [round(recorded.predicted(k), 3) for k in ks]
        measured = [round(recorded.measured(k), 3) for k in ks]
        figure.add_trace(_line(recorded.title, ks, tokens, look), row=1, col=1)
        figure.add_trace(_line(f"{recorded.title}, predicted", ks, predicted, look, legend=False), row=1, col=2)
        figure.add_trace(_line(f"{recorded.title}, by the clock", ks, measured, look, hollow=True), row=1, col=2)
    ends = [min(recordings[0].runs) - 0.4, max(recordings[0].runs) + 0.4]
    figure.add_trace(_level("as fast as naive", ends, 1), row=1, col=2)
    figure.update_xaxes(title="K, tokens drafted a round", dtick=1, range=ends)
    figure.update_yaxes(rangemode="tozero")
    figure.update_annotations(font_size=13)
    figure.update_layout(legend=dict(y=-0.3, entrywidth=170))
    return figure


def _line(
    name: str, x: list[int], y: list[float], look: tuple[str, str, str], hollow: bool = False, legend: bool = True
) -> go.Scatter:
    import plotly.graph_objects as go

    colour, symbol, dash = look
    return go.Scatter(
        x=x, y=y, name=name, uid=uid("sweep", name), showlegend=legend, mode="markers" if hollow else "lines+markers",
        line=dict(color=colour, dash=dash, width=2), hovertemplate="K = %{x}: %{y:.2f}",
        marker=dict(color=PAPER if hollow else colour, symbol=symbol, size=8, line=dict(color=colour, width=1.5)),
    )  # fmt: skip


def _level(name: str, x: list[float], y: float) -> go.Scatter:
    import plotly.graph_objects as go

    look = dict(color=GREY, width=1.5, dash="dot")
    return go.Scatter(x=x, y=[y, y], name=name, uid=uid("sweep", name), mode="lines", line=look, hoverinfo="skip")


def sweep_sentence(recordings: Sequence[Recorded]) -> str:
    """What `k_sweep` shows, in words."""
    parts = []
    for each in recordings:
        ks = list(each.runs)
        parts.append(
            f"{each.title}: from {each.tokens_per_round(ks[0]):.2f} tokens a forward at K = {ks[0]} "
            f"to {each.tokens_per_round(ks[-1]):.2f} at K = {ks[-1]}; predicted {each.predicted(ks[0]):.2f} and "
            f"{each.predicted(ks[-1]):.2f} times naive, by the clock {each.measured(ks[0]):.2f} and "
            f"{each.measured(ks[-1]):.2f}"
        )
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def recorded_race(recorded: Recorded, k: int) -> go.Figure:
    """The race at one k, from a recording, on an axis whose unit is one naive forward."""
    import plotly.graph_objects as go

    return go.Figure(recorded_race_parts(recorded, k), layout_template=template())


def recorded_race_parts(recorded: Recorded, k: int) -> dict[str, Any]:
    """The same as plain data and layout; every k has the same frame."""
    runs = [recorded.naive, *recorded.runs.values()]
    parts = race_parts(
        recorded.naive,
        recorded.runs[k],
        recorded.decode,
        unit=recorded.forward_seconds,
        unit_name="naive forwards of time",
        axis="time, in naive forwards",
        most=max(len(each.kept) for run in runs for each in run.rounds),
    )
    end = max(sum(run.time_split().values()) for run in runs) / recorded.forward_seconds
    parts["layout"]["xaxis"]["range"] = [-0.5, round(1.01 * end, 1)]
    parts["layout"]["meta"] = dict(alt=k_sentence(recorded, k))
    return parts


def k_sentence(recorded: Recorded, k: int) -> str:
    """What the race at one k shows, in words and numbers."""
    run = recorded.runs[k]
    accepted, drafted = sum(r.accepted for r in run.rounds), sum(len(r.drafted) for r in run.rounds)
    brings, costs = recorded.tokens_per_round(k), recorded.cost(k)
    return (
        f"K = {k}, {recorded.title}: {run.new_tokens} tokens in {len(run.rounds)} rounds, {brings:.2f} tokens a round; "
        f"{accepted} of {drafted} drafted tokens accepted.\n"
        f"A round costs {costs:.2f} naive forwards, so the prediction is {brings:.2f} / {costs:.2f} = "
        f"{recorded.predicted(k):.2f} times as fast as naive; the clock said {recorded.measured(k):.2f}."
    )


def show(figure: go.Figure) -> None:
    """Display a figure in a notebook; where plotly can't run, its sentence stands instead."""
    from IPython.display import display

    display(bundle(figure), raw=True)


def bundle(figure: go.Figure) -> dict[str, Any]:
    """The figure as Jupyter wants it, with its sentence as plain text."""
    sentence = (figure.layout.meta or {}).get("alt", "a figure")
    return {"application/vnd.plotly.v1+json": json.loads(figure.to_json()), "text/plain": sentence}
