"""Pictures of the bug museum: all exhibits with what the alarms read, and the texts that one of them writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..teaching.museum import MUSEUM
from ..teaching.museum.alarms import EXACT, Reading
from ..theory.exact import Distribution, Text
from .theme import BLUE, GREEN, GREY, INK, ORANGE, VERMILLION, template, uid

if TYPE_CHECKING:
    import plotly.graph_objects as go

ROW = 27  # pixels a row
SPLIT = 0.60  # where the left panel ends
HIGHEST = 0.45  # the axis of one exhibit's texts, the same for all
NAMES = (".", "a", "b")  # of the tokens: the end, and two letters


@dataclass(frozen=True)
class Class:
    """How one class looks: a colour, a mark and a pattern."""

    name: str
    colour: str
    ground: str
    mark: str
    symbol: str
    pattern: str


CLASSES = {
    each.name: each
    for each in (
        Class("biased", VERMILLION, "#FBE3D2", "✗", "x", "x"),
        Class("exact but slow", ORANGE, "#FCEFD2", "◆", "diamond", "/"),
        Class("exact", GREEN, "#A9DFCD", "●", "circle", ""),
    )
}
KINDS = {exhibit.name: exhibit.kind for exhibit in MUSEUM}


def museum_map(readings: Sequence[Reading]) -> go.Figure:
    """Every exhibit in a row: left how far its texts are off, right what it keeps of a twin's drafts."""
    import plotly.graph_objects as go

    return go.Figure(museum_parts(readings), layout_template=template())


def museum_parts(readings: Sequence[Reading]) -> dict[str, Any]:
    """The same as plain data and layout. Rows stand in the order of the classes."""
    rows = sorted(readings, key=lambda each: list(CLASSES).index(KINDS[each.name]))
    place = {each.name: len(rows) - 1 - i for i, each in enumerate(rows)}
    data: list[dict[str, Any]] = []
    for look in CLASSES.values():
        mine = [each for each in rows if KINDS[each.name] == look.name]
        data += [_bars(look, mine, place), _dots(look, mine, place)]
    data += [_promises(rows, place), _dice(rows, place)]
    top = max(max(each.off, each.dice_off * each.by_dice_alone) for each in rows)
    labels = [f"{each.name}  <b>{CLASSES[KINDS[each.name]].mark}</b>" for each in rows]
    axis = dict(range=[-0.6, len(rows) - 0.4], tickvals=[place[each.name] for each in rows], ticks="", showgrid=False)
    borders = [
        place[one.name] - 0.5
        for one, other in zip(rows, rows[1:], strict=False)
        if KINDS[one.name] != KINDS[other.name]
    ]
    line = dict(type="line", xref="paper", x0=-0.34, x1=1, line=dict(color="#BBBBBB", width=1))
    layout = dict(
        height=ROW * len(rows) + 150,
        margin=dict(t=42, b=104, l=250, r=16),
        xaxis=dict(domain=[0, SPLIT], range=[0, round(1.16 * top, 2)], title=dict(text="total variation")),
        xaxis2=dict(
            domain=[SPLIT + 0.04, 1], range=[0.5, 1.04], anchor="y2", title=dict(text="share kept"),
            tickvals=[0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
        ),
        yaxis=axis | dict(ticktext=labels),
        yaxis2=axis | dict(anchor="x2", showticklabels=False),
        shapes=[line | dict(y0=y, y1=y) for y in borders],
        annotations=[
            _head("<b>How far are its texts off?</b>", 0),
            _head("<b>Kept of a twin's drafts</b>", SPLIT + 0.04),
        ],
        legend=dict(y=-66 / (ROW * len(rows)), x=-0.34, entrywidth=185),
        bargap=0.32,
        meta=dict(alt=museum_sentence(rows)),
    )  # fmt: skip
    return dict(data=data, layout=layout)


def museum_sentence(readings: Sequence[Reading]) -> str:
    """What the picture shows, in words and numbers."""
    parts = []
    for look in CLASSES.values():
        mine = [each for each in readings if KINDS[each.name] == look.name]
        told = ", ".join(f"{each.name} {each.off:.3f} and {each.kept:.2f}" for each in mine)
        parts.append(f"{look.name}: {told}")
    return "Total variation and share kept of a twin's drafts. " + "; ".join(parts) + "."


def _bars(look: Class, mine: Sequence[Reading], place: Mapping[str, int]) -> dict[str, Any]:
    pattern = dict(shape=look.pattern, fgcolor=look.colour, bgcolor=look.ground, size=8, solidity=0.2)
    return dict(
        type="bar", orientation="h", name=f"{look.mark} {look.name}", uid=uid("museum", look.name, "off"),
        x=[round(each.off, 4) for each in mine], y=[place[each.name] for each in mine],
        text=["" if each.by_dice_alone else _number(each.off) for each in mine],
        textposition="outside", textfont=dict(size=12, color=INK), cliponaxis=False, showlegend=False,
        hovertext=[f"{each.name}: total variation {each.off:.4f}" for each in mine], hoverinfo="text",
        marker=dict(color=look.ground, line=dict(color=look.colour, width=1.5), pattern=pattern),
    )  # fmt: skip


def _number(off: float) -> str:
    return f"{off:.3f}" if off > EXACT else "0"


def _dots(look: Class, mine: Sequence[Reading], place: Mapping[str, int]) -> dict[str, Any]:
    return dict(
        type="scatter", mode="markers", name=look.name, uid=uid("museum", look.name, "kept"),
        x=[round(each.kept, 4) for each in mine], y=[place[each.name] for each in mine], xaxis="x2", yaxis="y2",
        marker=dict(symbol=look.symbol, size=11, color=look.colour, line=dict(color=INK, width=0.5)), cliponaxis=False,
        hovertext=[f"{each.name}: kept {each.kept:.3f}, promised {each.promised:.3f}" for each in mine],
        hoverinfo="text",
    )  # fmt: skip


def _promises(rows: Sequence[Reading], place: Mapping[str, int]) -> dict[str, Any]:
    """A tick where each rule says that a twin's drafts should be."""
    return dict(
        type="scatter", mode="markers", name="what its rule promises", uid=uid("museum", "promised"),
        x=[round(each.promised, 4) for each in rows], y=[place[each.name] for each in rows], xaxis="x2", yaxis="y2",
        marker=dict(symbol="line-ns-open", size=17, color=BLUE, line=dict(width=2.5, color=BLUE)), hoverinfo="skip",
        cliponaxis=False,
    )  # fmt: skip


def _dice(rows: Sequence[Reading], place: Mapping[str, int]) -> dict[str, Any]:
    """What dice see where enumeration sees nothing."""
    mine = [each for each in rows if each.by_dice_alone]
    return dict(
        type="scatter", mode="markers+text", name="seen by dice only", uid=uid("museum", "dice"),
        x=[round(each.dice_off, 4) for each in mine] or [None], y=[place[each.name] for each in mine] or [None],
        text=[f" {each.dice_off:.3f} by dice" for each in mine], textposition="middle right", hoverinfo="text",
        hovertext=[f"{each.name}: texts off by {each.dice_off:.3f}, by dice" for each in mine],
        textfont=dict(size=12, color=INK),
        marker=dict(symbol="star-open", size=13, color=VERMILLION, line=dict(width=2, color=VERMILLION)),
    )  # fmt: skip


# One exhibit


def spelled(text: Text) -> str:
    """A text in letters."""
    return "".join(NAMES[token] for token in text)


def texts_of(wanted: Distribution, all_written: Sequence[Distribution]) -> list[Text]:
    """Every text of any of them: what the target writes comes first, and the likely before the rare."""
    every = {text for written in (wanted, *all_written) for text in written}
    return sorted(every, key=lambda text: (-wanted.get(text, 0.0), spelled(text)))


def effect(reading: Reading, wanted: Distribution, texts: Sequence[Text]) -> Any:
    """The texts of one exhibit beside the target's. Arguments as for `effect_parts`."""
    import plotly.graph_objects as go

    return go.Figure(effect_parts(reading, wanted, texts), layout_template=template())


def effect_parts(reading: Reading, wanted: Distribution, texts: Sequence[Text]) -> dict[str, Any]:
    """As plain data and layout; every exhibit gives traces of the same make.

    Where enumeration sees nothing and the dice do, the shares of what was thrown take its place.

    Args:
        reading: what the alarms read.
        wanted: the target's own distribution.
        texts: what stands under the bars.
    """
    found, look = reading.thrown if reading.by_dice_alone else reading.written, CLASSES[KINDS[reading.name]]
    pattern = dict(shape=look.pattern, fgcolor=look.colour, bgcolor=look.ground, size=8, solidity=0.2)
    heights = [round(found.get(text, 0.0), 5) for text in texts]
    levels = [round(wanted.get(text, 0.0), 5) for text in texts]
    told = [f"{spelled(x)}: written {h:.3f}, wanted {w:.3f}" for x, h, w in zip(texts, heights, levels, strict=True)]
    half, border = 0.44, sum(text in wanted for text in texts) - 0.5
    data = [
        dict(
            type="bar", name="written", uid=uid("effect", "written"), x=list(range(len(texts))), y=heights, width=0.72,
            hovertext=told, hoverinfo="text",
            marker=dict(color=look.ground, line=dict(color=look.colour, width=1.5), pattern=pattern),
        ),
        dict(
            type="scatter", mode="lines", name="wanted: the target's own, solid line", uid=uid("effect", "wanted"),
            x=[each for i in range(len(texts)) for each in (i - half, i + half, None)],
            y=[each for level in levels for each in (level, level, None)], hoverinfo="skip",
            line=dict(color=BLUE, width=3), connectgaps=False,
        ),
    ]  # fmt: skip
    layout = dict(
        height=360,
        margin=dict(t=44, b=104, l=56, r=12),
        xaxis=dict(
            tickvals=list(range(len(texts))), ticktext=[spelled(text) for text in texts], tickangle=-60, ticks="",
            range=[-0.6, len(texts) - 0.4], showgrid=False, tickfont=dict(size=13),
        ),
        yaxis=dict(range=[0, HIGHEST], title=dict(text="probability")),
        annotations=[
            _head(f"<b>{reading.name}</b>: {look.mark} {look.name}", 0),
            dict(x=border, y=HIGHEST, xanchor="left", yanchor="top", showarrow=False, text=" never wanted:"),
        ],
        shapes=[dict(type="line", x0=border, x1=border, y0=0, y1=1, yref="paper", line=dict(color=GREY, dash="dot"))],
        legend=dict(y=-0.3),
        meta=dict(alt=effect_sentence(reading, wanted)),
    )  # fmt: skip
    return dict(data=data, layout=layout)


def effect_sentence(reading: Reading, wanted: Distribution) -> str:
    """Which texts come too often and too rarely, in words and numbers."""
    found = reading.thrown if reading.by_dice_alone else reading.written
    if reading.off < EXACT and found is reading.written:
        return f"{reading.name}: all {len(wanted)} texts have the target's probability."
    apart = {text: found.get(text, 0.0) - wanted.get(text, 0.0) for text in found.keys() | wanted.keys()}
    most, least = max(apart, key=lambda text: apart[text]), min(apart, key=lambda text: apart[text])
    told = [
        f'"{spelled(text)}" is written {found.get(text, 0.0):.3f} of the time and wanted {wanted.get(text, 0.0):.3f}'
        for text in (most, least)
    ]
    never = sum(text not in wanted for text in found)
    more = f"; texts that the target never writes: {never}" if never else ""
    how = " (Drawn with its own dice.)" if reading.by_dice_alone else ""
    return f"{reading.name}: {', '.join(told)}{more}.{how}"


def _head(text: str, x: float) -> dict[str, Any]:
    place = dict(x=x, y=1.01, xref="paper", yref="paper", xanchor="left", yanchor="bottom")
    return place | dict(text=text, showarrow=False, font=dict(size=14))
