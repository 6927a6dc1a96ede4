"""A widget for the theorem: shape two distributions, watch the areas, draw, and see the histogram settle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..acceptance import TokenRejection
from ..acceptance import overlap as overlap_of
from ..acceptance import residual as residual_of
from ..randomness import inverse_cdf
from ..sampling.distributions import Sampling, probabilities
from ..theory.statistics import histogram_variation, variation_of_noise
from .explorer import Explorer
from .overlap import overlap_parts, overlap_picture

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


class ResidualExplorer(Explorer):
    """Sliders for every score of target and draft, temperature, top-k, and the number of draws.

    What a hand can move, code can too: `explorer.move(temperature=0.5, draws=1000, rule="target")`.
    `explorer.text` is what the readout says.

    Args:
        shape: one of `SHAPES`, where the sliders start.
        seed: of the draws.
    """

    def __init__(self, shape: str = "a fair imitation", seed: int = 0) -> None:
        self.uniforms = torch.rand(3, DRAWS[-1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.state = dict(temperature=1.0, top_k=len(NAMES), draws=0, rule="residual", **scores_of(shape))
        self.open()

    def move(self, **changes: Any) -> None:
        """Set any of shape, or target and draft (scores), temperature, top_k, draws, rule.

        Raises:
            ValueError: a name or a value that is not there.
        """
        if shape := changes.pop("shape", None):
            changes = scores_of(shape) | changes
        super().move(**changes)

    def choices(self, state: Mapping[str, Any]) -> dict[str, Any]:
        return dict(draws=DRAWS, rule=list(RULES), top_k=range(1, len(NAMES) + 1))

    def check(self, state: dict[str, Any]) -> None:
        super().check(state)
        if not len(state["target"]) == len(state["draft"]) == len(NAMES):
            raise ValueError(f"needs {len(NAMES)} scores for target and draft")
        self.sampling(state)  # refuses a temperature that cannot be

    def sampling(self, state: Mapping[str, Any]) -> Sampling:
        return Sampling(state["temperature"], state["top_k"])

    # Numbers

    @property
    def p_target(self) -> Tensor:
        """After temperature and top-k. [vocab]"""
        return probabilities(torch.tensor(self.state["target"]), self.sampling(self.state))

    @property
    def p_draft(self) -> Tensor:
        """After temperature and top-k. [vocab]"""
        return probabilities(torch.tensor(self.state["draft"]), self.sampling(self.state))

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

    def parts(self) -> dict[str, Any]:
        return overlap_parts(*self._distributions())

    def make_controls(self, w: Any) -> dict[str, Any]:
        look = dict(style=dict(description_width="86px"), layout=w.Layout(width="300px"))
        rules = [(words, rule) for rule, words in RULES.items()]
        self.shape = w.Dropdown(options=[*SHAPES, OWN], value=self._shape(), description="shape", **look)
        self.shape.observe(lambda change: change["new"] == OWN or self.moved(shape=change["new"]), "value")
        self.play = w.Play(value=0, min=0, max=len(DRAWS) - 1, interval=700, tooltip="draw more and more")
        self.play.observe(lambda change: self.moved(draws=DRAWS[change["new"]]), "value")
        self.scores = {which: self._scores(w, which) for which in ("target", "draft")}
        return dict(
            temperature=w.FloatSlider(1.0, min=0.0, max=2.0, step=0.1, description="temperature", **look),
            top_k=w.IntSlider(len(NAMES), 1, len(NAMES), description="top-k", **look),
            draws=w.SelectionSlider(options=DRAWS, value=0, description="draws", **look),
            rule=w.Dropdown(options=rules, value="residual", description="replace", **look),
        )

    def _scores(self, w: Any, which: str) -> list[Any]:
        """A slider for the score of each token."""
        tall = dict(orientation="vertical", readout=False, layout=w.Layout(height="130px", width="46px"))
        sliders = [
            w.FloatSlider(score, min=-3, max=3, step=0.25, description=name, **tall)
            for name, score in zip(NAMES, self.state[which], strict=True)
        ]
        for slider in sliders:
            slider.observe(lambda _: self.moved(**{which: tuple(each.value for each in sliders)}), "value")
        return sliders

    def arrange(self, w: Any) -> list[Any]:
        left = [
            w.VBox([w.HTML(f"<b>the {which}'s scores</b>"), w.HBox(sliders)], layout=w.Layout(width="246px"))
            for which, sliders in self.scores.items()
        ]
        return [w.HBox([*left, w.VBox([self.shape, *self.controls.values(), self.play])])]

    def _shape(self) -> str:
        now = self.state["target"], self.state["draft"]
        return next((name for name, scores in SHAPES.items() if scores == now), OWN)

    def show(self) -> None:
        super().show()
        for which, sliders in self.scores.items():
            for slider, score in zip(sliders, self.state[which], strict=True):
                slider.value = score
        self.shape.value, self.play.value = self._shape(), DRAWS.index(self.state["draws"])


def scores_of(shape: str) -> dict[str, tuple[float, ...]]:
    """The scores of one of `SHAPES`."""
    if shape not in SHAPES:
        raise ValueError(f"shape must be one of {list(SHAPES)}, got {shape!r}")
    return dict(zip(("target", "draft"), SHAPES[shape], strict=True))
