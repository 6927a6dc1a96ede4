"""Watch something rise while it is computed: a progress bar with an estimate, and a curve that grows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .curves import curves
from .widgets import WIDTH, live_possible

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from ..pocket.live import Progress


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
