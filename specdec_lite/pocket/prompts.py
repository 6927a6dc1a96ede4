"""Prompts for demonstrations and benchmarks: a few written here, many from held-out files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .corpus import is_held_out, read_source, source_files, standard_library

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# They need no file on disk, so that the demo works wherever the package does. None ends in a line
# break: the pocket tokenizer joins it with the indentation after it.
BUILT_IN = (
    '''import os
import sys

def walk(path, depth=0):
    """List a folder and all that lies below it."""''',
    """class TestParser(unittest.TestCase):

    def test_empty(self):
        self.assertEqual(parse(""), [])

    def test_one(self):""",
    '''def read_config(path):
    """Read a configuration file and return a dictionary."""
    result = {}
    with open(path, encoding="utf-8") as file:''',
)


def held_out_files(root: Path | None = None) -> list[Path]:
    """The files below `root` (default: the standard library) that nothing here was trained on."""
    root = root or standard_library()
    return [path for path in source_files(root) if is_held_out(path.relative_to(root).as_posix())]


def held_out_prompts(
    tokenizer: PreTrainedTokenizerBase, count: int, length: int = 96, root: Path | None = None
) -> list[list[int]]:
    """Prompts of `length` tokens that begin at a `def` or `class` line of a held-out file.

    The same on every call: files are taken evenly spread over the sorted list, first one place
    in each, near its middle, then a second, and so on.

    Raises:
        FileNotFoundError: fewer than `count` such places below `root`.
    """
    texts = [text for text in map(read_source, held_out_files(root)) if text]
    starts = [_beginnings(text) for text in texts]
    places = max(map(len, starts), default=0)
    found: list[list[int]] = []
    for turn in range(places):
        there = [(text, at) for text, at in zip(texts, starts, strict=True) if turn < len(at)]
        for text, at in _spread(there, count - len(found)):
            tokens = tokenizer.encode(text[at[turn] : at[turn] + 12 * length], add_special_tokens=False)
            if len(tokens) > length:  # so that the cut does not change the last token
                found.append(tokens[:length])
        if len(found) >= count:
            return found[:count]
    raise FileNotFoundError(
        f"{root or standard_library()} has {len(found)} places for a prompt of {length} tokens in held-out files, "
        f"and {count} are wanted: ask for fewer or shorter prompts, or install the standard library's source"
    )


def _beginnings(text: str) -> list[int]:
    """Where a line starts that opens a function or a class, the ones nearest the file's middle first."""
    starts, at = [], 0
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith(("def ", "async def ", "class ")):
            starts.append(at)
        at += len(line)
    return sorted(starts, key=lambda start: (abs(start - len(text) // 2), start))


def _spread(items: list, count: int) -> list:
    """`count` of the items, evenly spread; all of them when there are fewer."""
    if count >= len(items):
        return items
    return [items[i * len(items) // count] for i in range(count)]
