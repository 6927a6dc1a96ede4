"""What the command line writes with: colours that give way, tokens without broken characters, tables."""

from __future__ import annotations

import os
import shutil
import textwrap
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from ..stopping import IncrementalDetokenizer
from ..trace import MARKS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# For each kind of text: colour (the palette's, as near as 256 colours come on black and on white) and weight.
STYLES = {
    "accepted": ("38;5;36", ""),
    "corrected": ("38;5;166", "4"),  # underlined
    "bonus": ("38;5;32", "1"),  # bold
    "sampled": ("", ""),
    "plain": ("", ""),
    "prompt": ("", "2"),  # dim
    "note": ("", "2"),
    "title": ("", "1"),
}
ASCII = {"corrected": "^", "bonus": "*"}  # instead of a mark that the stream's encoding lacks; other kinds have none


class Ink:
    """Styles text for one stream; leaves it alone where nobody would see the style.

    A pipe, a file and `TERM=dumb` get plain text. `NO_COLOR` (https://no-color.org) takes the
    colours and leaves bold and underline.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.styled = stream.isatty() and os.environ.get("TERM") != "dumb"
        self.coloured = self.styled and not os.environ.get("NO_COLOR")
        if self.styled and os.name == "nt":
            os.system("")  # lets an older Windows console understand escape codes

    def __call__(self, text: str, kind: str) -> str:
        colour, weight = STYLES[kind]
        codes = ";".join(code for code in (weight if self.styled else "", colour if self.coloured else "") if code)
        return f"\033[{codes}m{text}\033[0m" if codes and text else text

    def glyph(self, wanted: str, plain: str) -> str:
        """`wanted`, or `plain` where the stream's encoding lacks it."""
        try:
            wanted.encode(self.stream.encoding or "ascii")
        except UnicodeEncodeError:
            return plain
        return wanted

    def mark(self, kind: str) -> str:
        """The sign before a token of this kind, in its colour but not underlined; empty for most kinds."""
        sign = self.glyph(MARKS[kind], ASCII[kind]) if kind in ASCII else ""
        colour, _ = STYLES[kind]
        return f"\033[{colour}m{sign}\033[0m" if sign and self.coloured else sign

    def write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()

    def line(self, text: str = "") -> None:
        self.write(text.rstrip() + "\n")

    def passing(self, text: str) -> None:
        """A note that the next one replaces; only where a terminal can take it back."""
        if self.styled:
            self.write("\r\033[K" + self(text, "note"))

    def paragraph(self, title: str, text: str, kind: str = "plain") -> None:
        """Indented, broken at the width of the terminal (at most 100), with a title that stands out."""
        width = min(100, shutil.get_terminal_size((100, 24)).columns)
        lines = textwrap.wrap(f"{title} {text}".strip(), width, initial_indent="  ", subsequent_indent="  ")
        lines = [self(line, kind) for line in lines]
        if title:
            lines[0] = lines[0].replace(title, self(title, "title"), 1)
        self.line("\n".join(lines))


class TokenWriter:
    """Writes a text token by token as it grows, each in the style and with the mark of its kind."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], ink: Ink) -> None:
        self.ink, self.pieces = ink, IncrementalDetokenizer(tokenizer, prompt)
        self.gutter = f"  {ink.glyph('│', '|')} "
        self.kinds: list[str] = []  # of the tokens not written yet
        self.kind = "sampled"  # of the last one that was
        ink.write(ink(self.gutter, "note"))
        if prompt:
            self._write(tokenizer.decode(prompt, skip_special_tokens=True), "prompt")

    def add(self, token: int, kind: str) -> None:
        """The next token: 'accepted', 'corrected', 'bonus' or 'sampled'."""
        self.kinds.append(kind)
        self._release(self.pieces.add(token))

    def close(self) -> None:
        """The text has ended; end the line."""
        self._release(self.pieces.close())
        self.ink.line()

    def _release(self, piece: str) -> None:
        count = len(self.kinds) - self.pieces.held
        kinds, self.kinds = self.kinds[:count], self.kinds[count:]
        for self.kind in kinds:
            self.ink.write(self.ink.mark(self.kind))
        if piece:
            self._write(piece, self.kind)

    def _write(self, text: str, kind: str) -> None:
        """Lines behind the gutter; a model's control characters must not reach the terminal."""
        safe = "".join("\ufffd" if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text)
        line_break = "\n" + self.ink(self.gutter, "note")
        self.ink.write(line_break.join(self.ink(line, kind) for line in safe.split("\n")))


def table(rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Lines with aligned columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=False)]
        lines.append((indent + "  ".join([row[0].ljust(widths[0]), *cells])).rstrip())
    return lines


def percent(share: float) -> str:
    """A share as a percentage; "none" where there was nothing to count."""
    return "none" if share != share else f"{share:.0%}"
