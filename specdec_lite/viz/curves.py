"""Curves over one quantity: predicted ones as lines, measured ones as hollow marks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from .explorer import WIDTH, live_possible
from .theme import BLUE, GREEN, GREY, PAPER, PURPLE, VERMILLION, template, uid

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from ..training.live import Progress


Points = tuple[Sequence[float], Sequence[float]]  # x, y
LOOKS = (
    (BLUE, "circle", "solid"),
    (VERMILLION, "diamond", "dash"),
    (GREEN, "square", "dot"),
    (PURPLE, "triangle-up", "dashdot"),
)


def curves(
    lines: Mapping[str, Points],
    marks: Mapping[str, Points] | None = None,
    *,
    x: str,
    y: str,
    level: tuple[str, float] | None = None,
    doubling: bool = False,
    title: str = "",
) -> go.Figure:
    """One line or one row of marks for each name; a name in both has one colour.

    Args:
        lines, marks: by name, x and y of the points.
        x, y: titles of the axes.
        level: a name and a height, for a dotted line across.
        doubling: x doubles from tick to tick.
    """
    import plotly.graph_objects as go

    marks = marks or {}
    looks = {name: LOOKS[i % len(LOOKS)] for i, name in enumerate(dict.fromkeys([*lines, *marks]))}
    figure = go.Figure(layout=dict(template=template(), height=360, margin=dict(t=40 if title else 24, b=96)))
    for name, (at, values) in lines.items():
        colour, symbol, dash = looks[name]
        figure.add_scatter(
            x=list(at), y=_short(values), name=f"{name}, predicted" if name in marks else name, mode="lines+markers",
            uid=uid("curve", name), line=dict(color=colour, dash=dash, width=2),
            marker=dict(color=colour, symbol=symbol, size=7), hovertemplate="%{x}: %{y:.2f}",
        )  # fmt: skip
    for name, (at, values) in marks.items():
        colour, symbol, _ = looks[name]
        figure.add_scatter(
            x=list(at), y=_short(values), name=f"{name}, measured" if name in lines else name, mode="markers",
            uid=uid("mark", name), hovertemplate="%{x}: %{y:.2f} measured",
            marker=dict(color=PAPER, symbol=symbol, size=10, line=dict(color=colour, width=2)),
        )  # fmt: skip
    everywhere = [each for at, _ in [*lines.values(), *marks.values()] for each in at]
    if level:
        figure.add_scatter(
            x=[min(everywhere), max(everywhere)], y=[level[1]] * 2, name=level[0], mode="lines", hoverinfo="skip",
            uid=uid("level", level[0]), line=dict(color=GREY, dash="dot", width=1.5),
        )  # fmt: skip
    if doubling:
        figure.update_xaxes(
            type="log", tickvals=sorted(set(everywhere)), ticktext=[f"{v:g}" for v in sorted(set(everywhere))]
        )
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=y, rangemode="tozero")
    figure.update_layout(
        title=title or None, legend=dict(y=-0.24, entrywidth=220), meta=dict(alt=curves_sentence(lines, marks, x, y))
    )
    return figure


def curves_sentence(lines: Mapping[str, Points], marks: Mapping[str, Points], x: str, y: str) -> str:
    """What `curves` shows, in words: both ends of each, and where it is highest."""
    told = [f"{y} over {x}."]
    for kind, all_ in (("", lines), (" (marks)", marks)):
        for name, (at, values) in all_.items():
            top = max(range(len(values)), key=lambda i: values[i])
            told.append(
                f"{name}{kind}: {values[0]:.2f} at {at[0]:g}, {values[-1]:.2f} at {at[-1]:g}, "
                f"highest {values[top]:.2f} at {at[top]:g}."
            )
    return " ".join(told)


def _short(values: Sequence[float]) -> list[float]:
    return [round(float(each), 3) for each in values]


def overlap_curve(points: Iterable[Progress], target: float | None = None) -> go.Figure:
    """Overlap with the target over seconds of learning; `target` is the overlap of the draft that ships."""
    points = list(points)
    line = ([round(each.seconds, 1) for each in points], [each.overlap for each in points])
    level = None if target is None else ("the draft that ships", target)
    figure = curves(
        {"a tiny draft, as it learns": line}, x="seconds of learning", y="overlap with the target", level=level
    )
    return figure.update_yaxes(range=[0, 1])


def watch(points: Iterable[Progress], seconds: float, target: float | None = None) -> list[Progress]:
    """Show bar and curve while `points` come in; returns them all. Without widgets it only waits."""
    if not live_possible():
        return list(points)
    import ipywidgets as w
    import plotly.graph_objects as go
    from IPython.display import display

    seen: list[Progress] = []
    bar, words = w.FloatProgress(0, max=seconds, layout=w.Layout(width="400px")), w.HTML("preparing")
    plot = go.FigureWidget(layout=dict(width=WIDTH))
    display(w.VBox([w.HBox([bar, words]), plot]))
    for point in points:
        seen.append(point)
        made = overlap_curve(seen, target)
        if not plot.data:
            plot.add_traces(made.data)
            plot.update_layout(made.layout, width=WIDTH)
            plot.update_xaxes(range=[0, seconds])
        with plot.batch_update():
            for old, new in zip(plot.data, made.data, strict=True):
                old.x, old.y = new.x, new.y
            if len(plot.data) > 1:
                plot.data[1].x = [0, seconds]
        bar.value = min(seconds, point.seconds)
        words.value = f"overlap {point.overlap:.2f}, {max(0.0, seconds - point.seconds):.0f} seconds left"
    return seen
