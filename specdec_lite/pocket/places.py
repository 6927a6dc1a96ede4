"""How well the pocket pair agrees along texts that its target wrote, at several temperatures, recorded once.

Both models read whole texts, so every place is known, whether a run would have judged it or not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "places.json"


@dataclass(frozen=True)
class Text:
    """One text; a number for each new token."""

    prompt: list[int]
    tokens: list[int]
    chance: list[
        float
    ]  # that this token was drafted and kept, given that it is in the text: min(1, p_draft / p_target)
    overlap: list[float]  # of the two distributions before it: sum(min(p_target, p_draft))


@dataclass(frozen=True)
class Places:
    """The target's own texts at one temperature, the same prompts at every temperature."""

    temperature: float
    texts: list[Text]
    pieces: dict[int, str]  # the text of every token that occurs
    machine: str
    date: str

    def decode(self, tokens: Iterable[int]) -> str:
        return "".join(self.pieces[token] for token in tokens)

    @property
    def count(self) -> int:
        return sum(len(each.tokens) for each in self.texts)

    @property
    def mean_overlap(self) -> float:
        return sum(sum(each.overlap) for each in self.texts) / self.count


def load_places(file: Path = FILE) -> dict[float, Places]:
    """The recording, by temperature, greedy first.

    Raises:
        FileNotFoundError: it is not there.
    """
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing: make it with python -m specdec_lite.training.record_places")
    return read(json.loads(file.read_text(encoding="utf-8")))


def read(data: dict[str, Any]) -> dict[float, Places]:
    """What `record_places.record` made."""
    pieces = {int(token): text for token, text in data["pieces"].items()}
    found = {}
    for run in data["runs"]:
        texts = [Text(prompt, *text) for prompt, text in zip(data["prompts"], run["texts"], strict=True)]
        found[run["temperature"]] = Places(run["temperature"], texts, pieces, data["machine"], data["date"])
    return dict(sorted(found.items()))
