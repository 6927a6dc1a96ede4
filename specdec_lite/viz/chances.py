"""A text, token by token, with the chance that a draft would have supplied each."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .theme import BLUE, GREEN, INK, MONO, PAPER, SANS, VERMILLION

GRADES = (  # from this chance on; a word, the ground, the line under it
    (0.9, "0.9 and more", "#DDF3EC", f"2px solid {GREEN}"),
    (0.5, "0.5 to 0.9", "#E8F1FA", f"2px dotted {BLUE}"),
    (0.0, "below 0.5", "#FBE3D2", f"3px double {VERMILLION}"),
)


def chances_html(pieces: Sequence[str], chance: Sequence[float], prompt: str = "") -> str:
    """Coloured text; hovering tells the number. Each grade has a line of its own under it, so colour is not alone."""
    body = "".join(_span(piece, each) for piece, each in zip(pieces, chance, strict=True))
    before = f'<span style="color:#767676">{escape(_breaks(prompt))}</span>' if prompt else ""
    key = "".join(
        f'<span style="margin-right:16px"><span style="background:{ground};border-bottom:{line};padding:0 4px">'
        f"chance</span> {word}</span>"
        for _, word, ground, line in GRADES
    )
    sheet = (
        f"background:{PAPER};color:{INK};padding:10px 14px;border:1px solid #D9D9D9;border-radius:6px;max-width:820px"
    )
    box = f"font:14px/1.95 {MONO};white-space:pre-wrap;overflow-wrap:anywhere"
    return (
        f'<div style="{sheet}"><div style="font:12px/2 {SANS};margin-bottom:4px">{key}</div>'
        f'<div style="{box}">{before}{body}</div></div>'
    )


def _span(piece: str, chance: float) -> str:
    _, _, ground, line = next(each for each in GRADES if chance >= each[0])
    style = f"background:{ground};border-bottom:{line};margin-right:2px;border-radius:3px"
    why = escape(f"{piece!r}: drafted and kept with chance {chance:.2f}", quote=True)
    return f'<span title="{why}" style="{style}">{escape(_breaks(piece))}</span>'


def _breaks(text: str) -> str:
    return text.replace("\n", "⏎\n")
