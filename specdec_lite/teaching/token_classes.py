"""What kind of token this is: an answer by rule of thumb, from its letters and those around it."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence

CLASSES = ("layout", "punctuation", "rest of a word", "keyword", "number", "start of a word")


def token_class(before: str, token: str, after: str) -> str:
    """Where the eye falls first: on what a Python programmer would call this token."""
    if not token.strip():
        return "layout"  # spaces, line breaks, indentation
    if not re.search(r"\w", token):
        return "punctuation"  # brackets, quotes, operators
    if re.match(r"\w", token) and re.search(r"\w$", before):
        return "rest of a word"
    inside = re.search(r"\w*$", token)[0]  # what may go on in the next token
    word = inside + re.match(r"\w*", after)[0] if inside else re.search(r"\w+", token)[0]
    if word in keyword.kwlist:
        return "keyword"
    return "number" if word[0].isdigit() else "start of a word"


def classes_along(pieces: Sequence[str], before: str = "") -> list[str]:
    """The class of every token of a text, given as the text of each."""
    found = []
    for i, piece in enumerate(pieces):
        found.append(token_class(before[-1:], piece, "".join(pieces[i + 1 : i + 12])))
        before += piece
    return found
