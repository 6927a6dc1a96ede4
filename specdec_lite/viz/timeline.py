"""The race: naive and speculative decoding on one time axis, every forward a bar, every token a mark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..trace import Round, Trace
from .theme import KINDS, PAPER, WORK, template, uid
from .tokens import Decode, Told, tell

if TYPE_CHECKING:
    import plotly.graph_objects as go

BAR, GAP = 0.5, 0.36  # height of a bar, and between two marks of a column
PARTS = {"draft": "drafting", "verify": "target forward", "rest": "the rest"}  # in the order of a round
Lanes = list[tuple[Trace, float, dict[int, list[Told]]]]  # a trace, the height of its lane, what its rounds wrote
MARKS = ("sampled", "accepted", "corrected", "bonus")


def race(naive: Trace, fast: Trace, decode: Decode, **options: Any) -> go.Figure:
    """Two lanes: bars are work, the column of marks above a round is what the round wrote.

    Arguments as for `race_parts`.
    """
    import plotly.graph_objects as go

    return go.Figure(race_parts(naive, fast, decode, **options), layout_template=template())


def race_parts(
    naive: Trace,
    fast: Trace,
    decode: Decode,
    *,
    unit: float = 1e-3,
    unit_name: str = "ms",
    axis: str = "milliseconds since the prompt was read",
    most: int | None = None,
) -> dict[str, Any]:
    """The race as plain data and layout, which a live figure can take over in a few milliseconds.

    Args:
        naive, fast: traces of one row each, with times.
        decode: token ids to text, for the hover.
        unit: seconds in one unit of the axis.
        unit_name, axis: that unit's name, and the axis' label.
        most: tokens in the tallest column to make room for (default: as many as there are), so
            that figures for several k share one frame.
    """
    tallest = most or max(len(each.kept) for each in fast.rounds)
    naive_at = tallest * GAP + BAR + 1.15  # where the upper lane stands
    lanes = [(naive, naive_at, _by_round(naive, decode)), (fast, 0.0, _by_round(fast, decode))]
    labels = [
        _label(f"<b>Naive</b>  {_sum(naive, unit, unit_name)}", naive_at + BAR + GAP),
        _label(f"<b>Speculative</b>  {_sum(fast, unit, unit_name)}: {_times(naive, fast)}", BAR + GAP * tallest),
    ]
    end = max(_seconds(naive), _seconds(fast)) / unit
    height = int(150 + 36 * (naive_at + 2))
    legend = dict(yref="container", yanchor="bottom", entrywidth=140)
    layout = dict(
        height=height,
        barmode="overlay",
        hovermode="closest",
        margin=dict(t=16, b=104, l=20),
        legend=legend | dict(y=0),
        legend2=legend | dict(y=24 / height, x=0, orientation="h", font=dict(size=12)),
        xaxis=dict(title=dict(text=axis), range=[-0.005 * end, 1.01 * end]),
        yaxis=dict(visible=False, range=[-0.35, naive_at + BAR + GAP + 1.0]),
        annotations=labels,
        meta=dict(alt=race_sentence(naive, fast)),
    )
    bars = [_bars(name, lanes, unit) for name in WORK]
    return dict(data=bars + [_marks(name, lanes, unit) for name in MARKS], layout=layout)


def _label(text: str, y: float) -> dict[str, Any]:
    place = dict(x=0, y=y + 0.28, xref="paper", yref="y", xanchor="left", yanchor="bottom")
    return place | dict(text=text, showarrow=False, font=dict(size=13))


def _bars(name: str, lanes: Lanes, unit: float) -> dict[str, Any]:
    """All bars of one kind of work. A draft phase is as many bars as the draft ran forwards."""
    work = WORK[name]
    base, width, y, hover = [], [], [], []
    for trace, at, _ in lanes:
        clock = 0.0
        for each in trace.rounds:
            for part, label in PARTS.items():
                seconds, pieces = each.seconds.get(part, 0.0), 1
                if part == "draft":
                    pieces, label = (len(each.drafted), label) if each.drafted else (1, "the rest")
                if label == name:
                    base += [round((clock + seconds * i / pieces) / unit, 3) for i in range(pieces)]
                    width += [round(seconds / pieces / unit, 3)] * pieces
                    y += [at + BAR * work.height / 2] * pieces
                    hover += [_work(each, name, seconds / unit)] * pieces
                clock += seconds
    marker = dict(color=work.colour, line=dict(color=PAPER, width=0.7 * work.height))
    look = dict(type="bar", name=f"{name} ({work.shape})", uid=uid("race", name), legend="legend", hoverinfo="text")
    return look | dict(
        x=width, y=y, base=base, orientation="h", width=BAR * work.height, hovertext=hover, marker=marker
    )


def _work(each: Round, name: str, length: float) -> str:
    detail = {
        "drafting": f"{len(each.drafted)} forwards of the draft",
        "target forward": f"one forward of the target over {len(each.drafted) + 1} position{'s' * bool(each.drafted)}",
        "the rest": "judging, rewinding, book-keeping",
    }[name]
    return f"round {each.index + 1}: {name}<br>{detail}<br>{length:.2f} on this axis"


def _marks(name: str, lanes: Lanes, unit: float) -> dict[str, Any]:
    """All tokens of one kind, each above the round that wrote it."""
    x, y, hover = [], [], []
    for trace, at, written in lanes:
        clock = 0.0
        for each in trace.rounds:
            begin, clock = clock, clock + sum(each.seconds.values())
            for i, token in enumerate(written[each.index]):
                if token.kind == name:
                    x.append(round((begin + clock) / 2 / unit, 3))
                    y.append(round(at + BAR + GAP * (i + 0.6), 3))
                    hover.append(_html(token.why))
    kind = KINDS[name]
    size, line = 11 if name == "bonus" else 8, 1.5 if "open" in kind.symbol else 0
    marker = dict(symbol=kind.symbol, color=kind.colour, size=size, line=dict(width=line))
    look = dict(
        type="scatter", name=f"{name} token", uid=uid("race", name), legend="legend2", hoverinfo="text", marker=marker
    )
    return look | dict(x=x or [None], y=y or [None], mode="markers", hovertext=hover, showlegend=True)


def _by_round(trace: Trace, decode: Decode) -> dict[int, list[Told]]:
    """What each round wrote; a rejected draft wrote nothing."""
    rounds: dict[int, list[Told]] = {each.index: [] for each in trace.rounds}
    for token in tell(trace, decode):
        if token.kind != "rejected":
            rounds[token.round].append(token)
    return rounds


def _html(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", "<br>")


def _seconds(trace: Trace) -> float:
    return sum(trace.time_split().values())


def _sum(trace: Trace, unit: float, unit_name: str) -> str:
    return (
        f"{trace.new_tokens} tokens in {len(trace.rounds)} target forwards, {_seconds(trace) / unit:,.0f} {unit_name}"
    )


def _times(naive: Trace, fast: Trace) -> str:
    return f"{_seconds(naive) / _seconds(fast):.2f} times as fast"


def race_sentence(naive: Trace, fast: Trace) -> str:
    """What the figure shows, in words."""
    return (
        f"Naive decoding wrote {naive.new_tokens} tokens in {len(naive.rounds)} target forwards, one each. "
        f"Speculative decoding wrote {fast.new_tokens} in {len(fast.rounds)}: "
        f"{fast.tokens_per_round_with_bonus:.2f} tokens a forward on average, "
        f"{max(len(each.kept) for each in fast.rounds)} in the best round."
    )
