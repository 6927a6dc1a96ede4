"""Prompts for a measurement: from a user's file, or from source held out of training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

from ..loading.pair import Pair
from ..prompts import encode
from .compare import prompts_for as held_out
from .compare import room_for


class Wanted(Protocol):
    """What a command's settings say of its prompts."""

    prompts: int  # how many, where no file is given
    max_new_tokens: int


def prompts_for(pair: Pair, settings: Wanted, file: str | None) -> list[list[int]]:
    """From the file, or from held-out source, as token ids; cut at their beginning where the context is too small.

    Raises:
        ValueError: a file that cannot be read or has no prompts, or no room for the new tokens.
    """
    if file is None:
        return held_out(pair, settings)
    room = room_for(pair, settings.max_new_tokens)
    tokens = [encode(text, pair.tokenizer) for text in read_prompts(file)]
    return [each[-room:] for each in tokens if each]


def read_prompts(file: str) -> list[str]:
    """One prompt a line; or, in a file named .json, a list of strings, which may have several lines each.

    Raises:
        ValueError: it cannot be read, or holds something else.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
        prompts = json.loads(text) if file.endswith(".json") else [line for line in text.splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ValueError(f"--prompts {file} cannot be read: {error}") from None
    if not isinstance(prompts, list) or not prompts or not all(isinstance(each, str) and each for each in prompts):
        raise ValueError(
            f"--prompts {file} holds no prompts: write one a line, or a list of strings into a file named .json"
        )
    return prompts
