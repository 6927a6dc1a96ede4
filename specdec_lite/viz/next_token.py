"""One next token: the distribution as bars, the same as one bar of length 1, and the number that picks from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..randomness import inverse_cdf
from ..sampling.distributions import Sampling, probabilities
from .theme import BLUE, INK, PAPER, SKY, VERMILLION, YELLOW, template, uid
from .tokens import shown

if TYPE_CHECKING:
    import plotly.graph_objects as go

Decode = Callable[[list[int]], str]
ROWS = 10  # tokens with a bar of their own; the others share one
SMALLEST_LABEL = 0.045  # a narrower piece of the long bar has no room for its name
TOPS = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0)  # ends that the axis of probabilities may have


@dataclass(frozen=True)
class Draw:
    """A distribution and the token that one uniform number picks from it.

    Args:
        logits: [vocab], as the model gave them.
        sampling: temperature and filters.
        uniform: from 0 to 1, 1 left out.
    """

    logits: Tensor
    sampling: Sampling
    uniform: float

    @property
    def plain(self) -> Tensor:
        """Softmax of the logits, before temperature and filters. [vocab]"""
        return self.logits.double().softmax(-1)

    @property
    def probs(self) -> Tensor:
        """What is drawn from. [vocab]"""
        return probabilities(self.logits, self.sampling)

    @property
    def token(self) -> int:
        """The library's own choice."""
        return int(inverse_cdf(self.probs.unsqueeze(0), torch.tensor([self.uniform], dtype=torch.float64)))

    @property
    def largest(self) -> list[int]:
        """The tokens with a bar of their own, likeliest first; the same at every temperature. [ROWS]"""
        return self.logits.topk(min(ROWS, len(self.logits))).indices.tolist()

    def piece(self, token: int) -> tuple[float, float]:
        """Where a token lies on the long bar."""
        cumulative = self.probs.cumsum(-1)
        return (cumulative[token - 1].item() if token else 0.0), cumulative[token].item()

    @property
    def possible(self) -> int:
        """How many tokens can be drawn at all."""
        return int((self.probs > 0).sum())

    @property
    def faces(self) -> float:
        """Of a fair die that is as undecided: e to the entropy."""
        kept = self.probs[self.probs > 0]
        return float((-(kept * kept.log()).sum()).exp())


def next_token(draw: Draw, decode: Decode) -> go.Figure:
    """Both bars and the number. Arguments as for `next_token_parts`."""
    import plotly.graph_objects as go

    return go.Figure(next_token_parts(draw, decode), layout_template=template())


def next_token_parts(draw: Draw, decode: Decode) -> dict[str, Any]:
    """The picture as plain data and layout; every draw gives traces of the same make.

    Args:
        draw: what to show.
        decode: tokens -> text.
    """
    probs, plain, token, rows = draw.probs, draw.plain, draw.token, draw.largest
    names = [named(decode([each])) for each in rows]
    heights, before = probs[rows].tolist(), plain[rows].tolist()
    rest = len(probs) - len(rows)
    if rest:
        names.append(f"{rest:,} others")
        heights.append(max(0.0, 1 - sum(heights)))
        before.append(max(0.0, 1 - sum(before)))
    at = rows.index(token) if token in rows else len(rows)
    places = list(range(len(names)))
    top = next(each for each in TOPS if each >= min(1.0, 1.12 * max(*heights, *before)))
    marks = ["▶ " if i == at else "✗ " if heights[i] <= 1e-12 else "" for i in places]
    pieces = _pieces(draw, decode)
    data = [
        dict(
            type="bar", orientation="h", name="probability it is drawn with", uid=uid("next", "bars"), width=0.66,
            showlegend=False,
            y=places, x=[_short(each) for each in heights],
            text=["" if mark == "✗ " else f"<b>{each:.3f}</b>" for each, mark in zip(heights, marks, strict=True)],
            textposition="outside", cliponaxis=False, textfont=dict(size=12, color=INK), hoverinfo="text",
            hovertext=[f"{name}: {p:.4f}, before {b:.4f}" for name, p, b in zip(names, heights, before, strict=True)],
            marker=dict(color=[YELLOW if i == at else SKY for i in places], line=dict(color=BLUE, width=1)),
        ),
        dict(
            type="scatter", mode="markers", name="softmax, before temperature and cuts", uid=uid("next", "before"),
            y=places, x=[_short(each) for each in before], hoverinfo="skip",
            marker=dict(symbol="line-ns-open", size=11, color=VERMILLION, line=dict(width=3)),
        ),
        dict(
            type="bar", orientation="h", name="all tokens end to end", uid=uid("next", "pieces"), showlegend=False,
            y=[0] * len(pieces), base=[_short(each.start) for each in pieces],
            x=[_short(each.end - each.start) for each in pieces], text=[each.label for each in pieces],
            textposition="inside", insidetextanchor="middle", textangle=0, textfont=dict(size=12, color=INK), width=0.9,
            hovertext=[each.about for each in pieces], hoverinfo="text", constraintext="none",
            marker=dict(color=[each.colour for each in pieces], line=dict(color=PAPER, width=1)),
            xaxis="x2", yaxis="y2",
        ),
        dict(
            type="scatter", mode="lines+markers", name="uniform", uid=uid("next", "uniform"), showlegend=False,
            x=[draw.uniform, draw.uniform], y=[-0.5, 0.98], hoverinfo="skip", cliponaxis=False,
            line=dict(color=INK, width=2), xaxis="x2", yaxis="y2",
            marker=dict(symbol=["circle", "triangle-down"], size=[1, 13], color=INK, opacity=1),
        ),
    ]  # fmt: skip
    head = f"<b>u = {draw.uniform:.3f}</b> falls on <b>{_escaped(named(decode([token])))}</b>"
    layout = dict(
        height=470,
        barmode="overlay",
        margin=dict(t=34, b=70, l=150, r=40),
        xaxis=dict(range=[0, top], domain=[0, 1], title=dict(text="probability", standoff=4), anchor="y"),
        yaxis=dict(
            tickvals=places, ticktext=_ticks(marks, names), range=[len(names) - 0.4, -0.6],
            domain=[0.36, 1], ticks="", showgrid=False, tickfont=dict(family="monospace", size=12),
        ),
        xaxis2=dict(range=[0, 1], domain=[0, 1], anchor="y2", tickformat=".1f", showgrid=False, dtick=0.1),
        yaxis2=dict(range=[-0.5, 1.25], domain=[0, 0.17], showticklabels=False, ticks="", showgrid=False,
                    showline=False),
        annotations=[
            dict(x=0, y=1.01, xref="paper", yref="paper", xanchor="left", yanchor="bottom", showarrow=False,
                 text=f"<b>Likeliest first</b>: temperature {draw.sampling.temperature:g}, {filters(draw.sampling)} "
                 "(▶ picked, ✗ cut)",
                 font=dict(size=14)),
            dict(x=0, y=0.19, xref="paper", yref="paper", xanchor="left", yanchor="bottom", showarrow=False,
                 text=f"<b>The same, end to end</b> in the vocabulary's order: {head}", font=dict(size=14)),
        ],
        legend=dict(y=-0.09, entrywidth=230),
        meta=dict(alt=next_token_sentence(draw, decode)),
    )  # fmt: skip
    return dict(data=data, layout=layout)


@dataclass(frozen=True)
class Piece:
    """A stretch of the long bar: one of the likeliest tokens, or all others between two of them."""

    start: float
    end: float
    label: str
    about: str
    colour: str


def _pieces(draw: Draw, decode: Decode) -> list[Piece]:
    probs, rows, picked = draw.probs, sorted(draw.largest), draw.token
    ends = [0.0, *probs.cumsum(-1).tolist()]
    found, reached, shade = [], 0, 0
    for token in [*rows, len(probs)]:
        if ends[token] - ends[reached] > 1e-9:
            width = ends[token] - ends[reached]
            about = f"{token - reached:,} other tokens: {ends[reached]:.3f} to {ends[token]:.3f}"
            label = "others" if width >= 1.6 * SMALLEST_LABEL else "…" if width > 0.02 else ""
            grey = YELLOW if reached <= picked < token else "#E3E3E3"
            found.append(Piece(ends[reached], ends[token], label, about, grey))
        if token < len(probs) and probs[token] > 0:
            name, width = named(decode([token])), probs[token].item()
            label = _escaped(name) if width >= max(SMALLEST_LABEL, 0.0105 * len(name)) else ""
            about = f"{name}: {ends[token]:.3f} to {ends[token + 1]:.3f}"
            blue = YELLOW if token == picked else (SKY, "#A9D8F5")[shade % 2]
            found.append(Piece(ends[token], ends[token + 1], label, about, blue))
            shade += 1
        reached = token + 1
    return found


def named(text: str) -> str:
    """A token in quotes, long runs of spaces counted: a label has no room for them, and HTML swallows them."""
    return re.sub(" {3,}", lambda run: f"‹{len(run[0])} spaces›", shown(text))


def filters(sampling: Sampling) -> str:
    """The cuts in words."""
    top_k = f"top-k {sampling.top_k}" if sampling.top_k else "top-k off"
    return f"{top_k}, " + (f"top-p {sampling.top_p:g}" if sampling.top_p < 1 else "top-p off")


def next_token_sentence(draw: Draw, decode: Decode) -> str:
    """What the picture shows, in words and numbers."""
    start, end = draw.piece(draw.token)
    best = int(draw.probs.argmax())
    few = "1 token" if draw.possible == 1 else f"{draw.possible:,} tokens"
    return (
        f"Temperature {draw.sampling.temperature:g}, {filters(draw.sampling)}: {few} can be drawn, "
        f"{named(decode([best]))} most often ({draw.probs[best].item():.3f}).\n"
        f"The model is as undecided as a fair die with {draw.faces:.1f} faces.\n"
        f"u = {draw.uniform:.3f} picks {named(decode([draw.token]))}, which lies on the bar "
        f"from {start:.4f} to {end:.4f}."
    )


def _ticks(marks: Sequence[str], names: Sequence[str]) -> list[str]:
    return [mark + _escaped(name) for mark, name in zip(marks, names, strict=True)]


def _short(value: float) -> float:
    return round(value, 6)


def _escaped(name: str) -> str:
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(" ", "\u00a0")
