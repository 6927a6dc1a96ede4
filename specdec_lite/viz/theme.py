"""One palette, one font, one plotly template. Every kind of token has a colour *and* a mark.

Colours: Okabe and Ito 2008, which people with any common colour blindness can tell apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from ..trace import MARKS, MEANINGS

if TYPE_CHECKING:  # plotly is an extra
    import plotly.graph_objects as go

ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#6E6E6E"
INK, PAPER, RULE = "#1A1A1A", "#FFFFFF", "#D9D9D9"

SANS = "Helvetica, Arial, 'Liberation Sans', sans-serif"
MONO = "Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace"


@dataclass(frozen=True)
class Kind:
    """How one kind of token looks in a figure and on a page."""

    name: str
    colour: str
    tint: str  # the colour, light enough to lie under black text
    symbol: str  # plotly's name for its mark
    line: str  # CSS: the line under the token, different in shape for each kind

    @property
    def meaning(self) -> str:
        return MEANINGS[self.name]

    @property
    def mark(self) -> str:
        """One character."""
        return MARKS[self.name]


KINDS = {
    kind.name: kind
    for kind in (
        Kind("accepted", GREEN, "#DDF3EC", "circle", "2px solid"),
        Kind("corrected", VERMILLION, "#FBE3D2", "triangle-up", "3px dashed"),
        Kind("bonus", BLUE, "#D6E8F5", "star", "4px double"),
        Kind("rejected", PURPLE, "#F6E6EF", "x-thin-open", "1px solid"),
        Kind("sampled", GREY, "#EEEEEE", "circle-open", "2px dotted"),
    )
}


@dataclass(frozen=True)
class Work:
    """How one kind of work looks in a timeline: a colour and a height."""

    name: str
    colour: str
    height: float  # share of a full bar
    shape: str  # the height in a word, for a legend without colours


WORK = {
    work.name: work
    for work in (
        Work("target forward", SKY, 1.0, "tall"),
        Work("drafting", ORANGE, 0.5, "short"),
        Work("the rest", GREY, 0.15, "flat"),
    )
}


def uid(*words: object) -> str:
    """A trace's identity, the same in every run. plotly makes CSS selectors of it: letters, digits and hyphens."""
    return re.sub(r"[^A-Za-z0-9]+", "-", " ".join(map(str, words)))


@cache
def template() -> go.layout.Template:
    """The plotly template of every figure. Colours are fixed, so a dark page shows a white sheet."""
    import plotly.graph_objects as go

    axis = dict(
        gridcolor="#ECECEC",
        linecolor=GREY,
        zeroline=False,
        showline=True,
        ticks="outside",
        tickcolor=GREY,
        title=dict(standoff=8, font_size=13),
    )
    layout = go.Layout(
        font=dict(family=SANS, size=13, color=INK),
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        colorway=[BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, GREY],
        title=dict(x=0, xref="paper", xanchor="left", font_size=15),
        margin=dict(l=56, r=24, t=64, b=52),
        xaxis=axis,
        yaxis=axis,
        hoverlabel=dict(bgcolor=PAPER, bordercolor=GREY, font=dict(family=MONO, size=12, color=INK), align="left"),
        legend=dict(orientation="h", x=0, xanchor="left", y=-0.2, yanchor="top", font_size=12),
        bargap=0,
    )
    return go.layout.Template(layout=layout)
