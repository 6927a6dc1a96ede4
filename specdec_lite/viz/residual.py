"""A widget for the theorem: shape two distributions, watch the areas, draw, and see the histogram settle."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..acceptance import TokenRejection
from ..acceptance import overlap as overlap_of
from ..acceptance import residual as residual_of
from ..randomness import inverse_cdf
from ..sampling.distributions import Sampling, probabilities
from ..theory.statistics import histogram_variation, variation_of_noise
from .figures import bundle
from .overlap import overlap_parts, overlap_picture
from .theme import INK, PAPER, SANS
from .widgets import MISSING, WIDGET, WIDTH, live_possible

if TYPE_CHECKING:
    import plotly.graph_objects as go

NAMES = ("sun", "rain", "wind", "snow", "mist")
SHAPES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {  # scores of target and draft
    "a fair imitation": ((2.0, 1.5, 0.5, -0.5, -1.0), (1.5, 0.5, 1.0, 0.0, -0.5)),
    "the same": ((2.0, 1.5, 0.5, -0.5, -1.0), (2.0, 1.5, 0.5, -0.5, -1.0)),
    "an undecided draft": ((2.0, 1.5, 0.5, -0.5, -1.0), (0.0, 0.0, 0.0, 0.0, 0.0)),
    "a draft too sure": ((1.0, 0.5, 0.5, 0.0, 0.0), (3.0, 0.0, -1.0, -1.5, -2.0)),
    "opposites": ((2.5, 1.0, 0.0, -1.5, -2.5), (-2.5, -1.5, 0.0, 1.0, 2.5)),
}
DRAWS = (0, 10, 30, 100, 300, 1000, 3000, 10_000)
RULES = {"residual": "from the residual", "target": "from the target (famous bug)"}
OWN = "as the sliders say"
MOVING = ("y", "base", "text", "hovertext", "x")


class ResidualExplorer:
    """Sliders for every score of target and draft, temperature, top-k, and the number of draws.

    What a hand can move, code can too: `explorer.move(temperature=0.5, draws=1000, rule="target")`.
    `explorer.text` is what the readout says.

    Args:
        shape: one of `SHAPES`, where the sliders start.
        seed: of the draws.
    """

    def __init__(self, shape: str = "a fair imitation", seed: int = 0) -> None:
        self.state: dict[str, Any] = dict(temperature=1.0, top_k=len(NAMES), draws=0, rule="residual")
        self.live: Any = None
        self.uniforms = torch.rand(3, DRAWS[-1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.move(shape=shape)
        self.live = self._build(shape) if live_possible() else None

    def move(self, **changes: Any) -> None:
        """Set any of shape, target, draft (scores), temperature, top_k, draws, rule.

        Raises:
            ValueError: a name or a value that is not there.
        """
        if shape := changes.pop("shape", None):
            if shape not in SHAPES:
                raise ValueError(f"shape must be one of {list(SHAPES)}, got {shape!r}")
            changes = dict(zip(("target", "draft"), SHAPES[shape], strict=True)) | changes
        if unknown := changes.keys() - {*self.state, "target", "draft"}:
            raise ValueError(f"there is no control {sorted(unknown)}; there are {sorted(self.state)}, shape")
        state = self.state | changes
        if state["draws"] not in DRAWS:
            raise ValueError(f"draws must be one of {DRAWS}, got {state['draws']}")
        if state["rule"] not in RULES:
            raise ValueError(f"rule must be one of {list(RULES)}, got {state['rule']!r}")
        if not len(state["target"]) == len(state["draft"]) == len(NAMES) or not 1 <= state["top_k"] <= len(NAMES):
            raise ValueError(f"needs {len(NAMES)} scores for target and draft, and top_k from 1 to {len(NAMES)}")
        sampling = Sampling(state["temperature"], state["top_k"])
        self.state, self.sampling = state, sampling
        if self.live is not None:
            self._show()

    # Numbers

    @property
    def p_target(self) -> Tensor:
        """After temperature and top-k. [vocab]"""
        return probabilities(torch.tensor(self.state["target"]), self.sampling)

    @property
    def p_draft(self) -> Tensor:
        """After temperature and top-k. [vocab]"""
        return probabilities(torch.tensor(self.state["draft"]), self.sampling)

    @property
    def overlap(self) -> float:
        return overlap_of(self.p_target, self.p_draft).item()

    def correction(self) -> Tensor:
        """Where a rejected token's replacement is drawn from. [vocab]"""
        return residual_of(self.p_target, self.p_draft) if self.state["rule"] == "residual" else self.p_target

    def written(self) -> Tensor:
        """The tokens drawn so far, by the library's own rule. [draws]"""
        n = self.state["draws"]
        rows = [probs.expand(n, -1) for probs in (self.p_target, self.p_draft, self.correction())]  # [n, vocab]
        to_draft, to_accept, to_correct = self.uniforms[:, :n]
        drafted = inverse_cdf(rows[1], to_draft)  # [n]
        kept = to_accept < TokenRejection().accept_prob(rows[0], rows[1], drafted)  # [n]
        return torch.where(kept, drafted, inverse_cdf(rows[2], to_correct))

    def counts(self) -> list[int]:
        return torch.bincount(self.written(), minlength=len(NAMES)).tolist()

    @property
    def text(self) -> str:
        """The readout."""
        p_target, p_draft, shared = self.p_target, self.p_draft, self.overlap
        written = torch.minimum(p_target, p_draft) + (1 - shared) * self.correction()
        bias = (written - p_target).abs().sum().item() / 2
        lines = [f"Overlap {shared:.3f} = 1 - total variation {1 - shared:.3f}: the chance that a draft is kept."]
        off = "exactly the target's" if bias < 1e-12 else f"off by a total variation of {bias:.3f}"
        lines.append(f"Replacements {RULES[self.state['rule']]}: what is written is {off}.")
        if n := self.state["draws"]:
            away = histogram_variation(torch.tensor(self.counts()).double(), p_target)
            noise = variation_of_noise(p_target, n)
            lines.append(f"After {n:,} draws the histogram is {away:.3f} away; luck alone would make it {noise:.3f}.")
        return "\n".join(lines)

    # Pictures

    def _distributions(self) -> tuple[Any, ...]:
        tensors = [self.p_target, self.p_draft, self.correction()]
        p_target, p_draft, correction = [[float(f"{p:.6g}") for p in each.tolist()] for each in tensors]
        return p_target, p_draft, NAMES, correction, self.counts()

    def figure(self) -> go.Figure:
        """The picture as it stands now, without controls."""
        return overlap_picture(*self._distributions())

    def _build(self, shape: str) -> Any:
        import ipywidgets as w
        import plotly.graph_objects as go

        def scores(which: str, title: str) -> Any:
            sliders = [
                w.FloatSlider(
                    score, min=-3, max=3, step=0.25, description=name, orientation="vertical", readout=False,
                    layout=w.Layout(height="130px", width="46px"),
                )
                for name, score in zip(NAMES, self.state[which], strict=True)
            ]  # fmt: skip
            for slider in sliders:
                slider.observe(lambda _: self._moved(**{which: tuple(each.value for each in sliders)}), "value")
            self.scores[which] = sliders
            return w.VBox([w.HTML(f"<b>{title}</b>"), w.HBox(sliders)], layout=w.Layout(width="246px"))

        self.scores: dict[str, list[Any]] = {}
        wide, line = dict(description_width="86px"), w.Layout(width="300px")
        self.shape = w.Dropdown(options=[*SHAPES, OWN], value=shape, description="shape", style=wide, layout=line)
        self.controls = dict(
            temperature=w.FloatSlider(
                1.0, min=0.0, max=2.0, step=0.1, description="temperature", style=wide, layout=line
            ),
            top_k=w.IntSlider(len(NAMES), 1, len(NAMES), description="top-k", style=wide, layout=line),
            draws=w.SelectionSlider(options=DRAWS, value=0, description="draws", style=wide, layout=line),
            rule=w.Dropdown(
                options=[(words, rule) for rule, words in RULES.items()], value="residual",
                description="replace", style=wide, layout=line,
            ),
        )  # fmt: skip
        self.busy = False
        self.shape.observe(lambda change: change["new"] == OWN or self._moved(shape=change["new"]), "value")
        self.play = w.Play(value=0, min=0, max=len(DRAWS) - 1, interval=700, tooltip="draw more and more")
        self.play.observe(lambda change: self._moved(draws=DRAWS[change["new"]]), "value")
        for name, control in self.controls.items():
            control.observe(lambda change, name=name: self._moved(**{name: change["new"]}), "value")
        self.readout = w.HTML(self._readout())
        self.plot = go.FigureWidget(self.figure().update_layout(width=WIDTH))
        left = [scores("target", "the target's scores"), scores("draft", "the draft's scores")]
        return w.VBox(
            [w.HBox([*left, w.VBox([self.shape, *self.controls.values(), self.play])]), self.readout, self.plot]
        )

    def _moved(self, **changes: Any) -> None:
        """A hand moved a control (or `_show` did, and then nothing is left to do)."""
        if not self.busy:
            self.move(**changes)

    def _show(self) -> None:
        """Controls, readout and figure take over the state."""
        self.busy = True
        try:
            for name, control in self.controls.items():
                control.value = self.state[name]
            for which, sliders in self.scores.items():
                for slider, score in zip(sliders, self.state[which], strict=True):
                    slider.value = score
            now = self.state["target"], self.state["draft"]
            self.shape.value = next((name for name, scores in SHAPES.items() if scores == now), OWN)
            self.play.value = DRAWS.index(self.state["draws"])
        finally:
            self.busy = False
        self.readout.value = self._readout()
        redraw(self.plot, overlap_parts(*self._distributions()))

    def _readout(self) -> str:
        style = f"font:14px/1.5 {SANS};color:{INK};background:{PAPER};padding:4px 8px;max-width:{WIDTH}px"
        lines = escape(self.text).replace("\n", "<br>")
        return f'<div class="specdec-readout" role="status" style="{style}">{lines}</div>'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        if self.live is None:
            return bundle(self.figure()) | {"text/plain": f"{self.text}\n{MISSING}"}
        view = {"version_major": 2, "version_minor": 0, "model_id": self.live.model_id}
        return {WIDGET: view, "text/plain": self.text}


def redraw(plot: go.FigureWidget, parts: dict[str, Any]) -> None:
    """Give a live figure the data and the labels of another one of the same make."""
    layout: dict[str, Any] = parts["layout"]
    with plot.batch_update():
        for old, new in zip(plot.data, parts["data"], strict=True):
            old.update({name: new[name] for name in MOVING if name in new})
        heads: Sequence[Any] = layout["annotations"]
        for old, new in zip(plot.layout.annotations, heads, strict=True):
            old.text = new["text"]
        plot.layout.yaxis.range, plot.layout.yaxis2.range = layout["yaxis"]["range"], layout["yaxis2"]["range"]
