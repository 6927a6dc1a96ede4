"""The text of a run, token by token: what became of each, and the numbers that decided it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from ..trace import Round, Trace
from .theme import BLUE, GREEN, INK, KINDS, MONO, PAPER, SANS, VERMILLION

if TYPE_CHECKING:
    import pandas as pd


Decode = Callable[[list[int]], str]


@dataclass(frozen=True)
class Told:
    """A token, what became of it, and why."""

    text: str
    kind: str  # a key of theme.KINDS
    round: int
    why: str  # two or three short lines


def tell(trace: Trace, decode: Decode, row: int = 0) -> list[Told]:
    """The tokens of a row in reading order; a rejected draft stands before the token that replaced it."""
    return [told for each in trace.rounds if each.row == row for told in _tell_round(each, decode)]


def _tell_round(each: Round, decode: Decode) -> Iterable[Told]:
    kinds = each.kept_kinds()
    for i, (token, kind) in enumerate(zip(each.kept, kinds, strict=True)):
        if kind == "corrected":
            yield Told(decode([each.drafted[i]]), "rejected", each.index, _verdict(each, i, decode, "rejected"))
        why = _verdict(each, i, decode, "accepted") if kind == "accepted" else _origin(each, kind, decode)
        yield Told(decode([token]), kind, each.index, why)


def _verdict(each: Round, i: int, decode: Decode, kind: str) -> str:
    """Both probabilities, the overlap, the chance, and the number that decided."""
    head = f"{shown(decode([each.drafted[i]]))} {kind}, draft {i + 1} of {len(each.drafted)} in round {each.index + 1}"
    if not each.chance:
        return head + "\n(its numbers were not recorded: run with trace='summary')"
    if kind == "rejected":
        below = "not below, so thrown away"
    elif each.uniform[i] < each.chance[i]:
        below = "below, so kept"
    else:  # block verification
        below = "not below, but kept with a longer prefix that passed"
    return (
        f"{head}\np_target {each.p_target[i]:.3f}   p_draft {each.p_draft[i]:.3f}   overlap {each.overlap[i]:.3f}\n"
        f"chance {each.chance[i]:.3f}   uniform {each.uniform[i]:.3f}: {below}"
    )


def _origin(each: Round, kind: str, decode: Decode) -> str:
    """Where a token came from that nobody drafted."""
    head = f"{shown(decode([each.token]))} {kind}, round {each.index + 1}"
    if kind == "bonus":
        kept = (
            f"all {len(each.drafted)} drafts were kept" if each.parents is None else "a path to the tree's end was kept"
        )
        drafts = f"{kept}, and the forward that judged them"
        return f"{head}\n{drafts}\nheld one distribution more: drawn from p_target"
    if kind == "corrected":
        failed = shown(decode([each.drafted[each.accepted]]))
        return f"{head}\nin place of {failed}: drawn from what p_target\nhas left where it exceeds p_draft"
    return f"{head}\nnothing was drafted: drawn from p_target"


def shown(text: str) -> str:
    """A token in quotes, with line breaks visible."""
    return repr(text)


def tokens_html(trace: Trace, decode: Decode, prompt: str = "", row: int = 0, legend: bool = True) -> str:
    """The text of a run as HTML; hovering over a token tells why it is there.

    Colour is never the only sign: each kind has its own line under it, and all but accepted
    tokens carry their mark. The marks are text, so they survive a page that strips styles.
    """
    told = tell(trace, decode, row)
    body = "".join(map(_span, told))
    return _page(_legend(dict.fromkeys(each.kind for each in told)) if legend else "", prompt, body)


def _page(legend: str, prompt: str, body: str) -> str:
    before = f'<span style="color:#767676">{escape(_breaks(prompt))}</span>' if prompt else ""
    box = f"font:14px/1.95 {MONO};white-space:pre-wrap;overflow-wrap:anywhere"
    sheet = (
        f"background:{PAPER};color:{INK};padding:10px 14px;border:1px solid #D9D9D9;border-radius:6px;max-width:820px"
    )
    return f'<div style="{sheet}">{legend}<div style="{box}">{before}{body}</div></div>'


def _span(told: Told) -> str:
    kind = KINDS[told.kind]
    why = escape(told.why, quote=True).replace("\n", "&#10;")
    style = f"background:{kind.tint};border-bottom:{kind.line} {kind.colour};border-radius:3px;margin-right:2px"
    text, mark = escape(_breaks(told.text)), ""
    if told.kind != "accepted":
        mark = f'<sup style="color:{INK};line-height:0;font-size:10px">{kind.mark}</sup>'
    if told.kind == "rejected":
        text = f"<s>{escape(told.text).replace(chr(10), '⏎')}</s>"  # a line that never was does not break
    return f'<span title="{why}" style="{style}">{mark}{text}</span>'


def _breaks(text: str) -> str:
    """Show a line break as a sign, and break the line."""
    return text.replace("\n", "⏎\n")


def _legend(names: Iterable[str]) -> str:
    order = [name for name in KINDS if name in set(names)]
    items = (
        f'<span style="margin-right:16px;white-space:nowrap"><span style="background:{k.tint};color:{INK};'
        f'border-bottom:{k.line} {k.colour};padding:0 4px">{k.mark}</span> {k.name}</span>'
        for k in (KINDS[name] for name in order)
    )
    return f'<div style="font:12px/2 {SANS};color:{INK};margin-bottom:4px">{"".join(items)}</div>'


def tokens_table(trace: Trace, decode: Decode, rounds: int = 2) -> pd.DataFrame:
    """The first rounds as a table: the same numbers for a page without hover, and for a screen reader."""
    frame = trace.to_frame()
    frame = frame[frame["round"] < rounds]
    table = frame[["round", "token", "kind", "p_target", "p_draft", "overlap", "chance", "uniform"]].copy()
    table["round"] += 1
    table["token"] = [shown(decode([token])) for token in frame["token"]]
    table["kind"] = [f"{KINDS[kind].mark} {kind}" if kind in KINDS else kind for kind in frame["kind"]]
    numbers = ["p_target", "p_draft", "overlap", "chance", "uniform"]
    table[numbers] = table[numbers].map(lambda value: "" if value != value else f"{value:.3f}")
    return table.reset_index(drop=True)


def counts(trace: Trace) -> dict[str, int]:
    """How many kept tokens there are of each kind, and how many rounds."""
    kinds = [kind for each in trace.rounds for kind in each.kept_kinds()]
    return {"rounds": len(trace.rounds)} | {name: kinds.count(name) for name in KINDS if name in kinds}


GRADES = (  # from this chance on; a word, the ground, the line under it
    (0.9, "0.9 and more", "#DDF3EC", f"2px solid {GREEN}"),
    (0.5, "0.5 to 0.9", "#E8F1FA", f"2px dotted {BLUE}"),
    (0.0, "below 0.5", "#FBE3D2", f"3px double {VERMILLION}"),
)


def chances_html(pieces: Sequence[str], chance: Sequence[float], prompt: str = "") -> str:
    """Coloured text; hovering tells the number. Each grade has a line of its own under it, so colour is not alone."""
    body = "".join(_graded(piece, each) for piece, each in zip(pieces, chance, strict=True))
    legend = "".join(
        f'<span style="margin-right:16px"><span style="background:{ground};border-bottom:{line};padding:0 4px">'
        f"chance</span> {word}</span>"
        for _, word, ground, line in GRADES
    )
    return _page(f'<div style="font:12px/2 {SANS};margin-bottom:4px">{legend}</div>', prompt, body)


def _graded(piece: str, chance: float) -> str:
    _, _, ground, line = next(each for each in GRADES if chance >= each[0])
    style = f"background:{ground};border-bottom:{line};margin-right:2px;border-radius:3px"
    why = escape(f"{piece!r}: drafted and kept with chance {chance:.2f}", quote=True)
    return f'<span title="{why}" style="{style}">{escape(_breaks(piece))}</span>'
