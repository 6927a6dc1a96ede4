"""Runs of the pocket pair that were recorded once, so that a slider never waits for a model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..trace import Round, Trace

FOLDER, PLACES = Path(__file__).parent / "traces", Path(__file__).parent / "places.json"
NUMBERS = ("p_target", "p_draft", "overlap", "chance", "uniform")  # of each drafted token


@dataclass(frozen=True)
class Recorded:
    """One prompt at one temperature, decoded naively and at every k, by one machine in turn.

    A round's times are the medians of its kind over all repeats, so a figure of it is a model
    of the run without the machine's moods; `wall` is the clock.
    """

    prompt: str
    temperature: float
    naive: Trace
    runs: dict[int, Trace]  # by k
    wall: dict[int, float]  # median seconds of a whole run by k, reading the prompt included; 0 is naive
    pieces: dict[int, str]  # the text of every token that occurs
    machine: str
    date: str

    @property
    def title(self) -> str:
        return "greedy" if self.temperature == 0 else f"temperature {self.temperature:g}"

    def decode(self, tokens: Iterable[int]) -> str:
        return "".join(self.pieces[token] for token in tokens)

    @property
    def forward_seconds(self) -> float:
        """One naive round: a forward over one position, and the little around it."""
        return sum(self.naive.rounds[0].seconds.values())

    def cost(self, k: int) -> float:
        """What a round costs on average, in naive forwards."""
        run = self.runs[k]
        return sum(run.time_split().values()) / len(run.rounds) / self.forward_seconds

    def tokens_per_round(self, k: int) -> float:
        return self.runs[k].tokens_per_round_with_bonus

    def predicted(self, k: int) -> float:
        """Times as fast as naive: tokens a round over what a round costs."""
        return self.tokens_per_round(k) / self.cost(k)

    def measured(self, k: int) -> float:
        """Times as fast as naive, by the clock."""
        return self.wall[0] / self.wall[k]


def load_recorded(folder: Path = FOLDER) -> list[Recorded]:
    """All recordings, greedy first.

    Raises:
        FileNotFoundError: none there.
    """
    found = [_read(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))]
    if not found:
        raise FileNotFoundError(
            f"{folder} holds no recording: make them with python -m specdec_lite.training.record_traces"
        )
    return sorted(found, key=lambda each: each.temperature)


def _read(data: dict[str, Any]) -> Recorded:
    runs = {int(k): _unpack(run, int(k), data["prompt_tokens"]) for k, run in data["runs"].items()}
    return Recorded(
        prompt=data["prompt"],
        temperature=data["temperature"],
        naive=runs.pop(0),
        runs=runs,
        wall={int(k): run["wall"] for k, run in data["runs"].items()},
        pieces={int(token): text for token, text in data["pieces"].items()},
        machine=data["machine"],
        date=data["date"],
    )


def pack(trace: Trace, seconds: dict[str, float], wall: float) -> dict[str, Any]:
    """A trace as small as a picture needs: `seconds` of one draft forward, of verifying, of the rest."""
    rounds = []
    for each in trace.rounds:
        numbers = [list(map(_short, values)) for values in zip(*(getattr(each, name) for name in NUMBERS), strict=True)]
        for i, (*_, chance, uniform) in enumerate(numbers):
            if (uniform < chance) != (each.uniform[i] < each.chance[i]):  # rounding must not change a verdict
                numbers[i][-2:] = each.chance[i], each.uniform[i]
        rounds.append([each.drafted, each.accepted, each.token, each.kind, len(each.kept), each.ended, numbers])
    return {"seconds": seconds, "wall": wall, "rounds": rounds}


def _unpack(run: dict[str, Any], k: int, prompt: list[int]) -> Trace:
    rounds, position = [], len(prompt)
    for index, (drafted, accepted, token, kind, kept, ended, numbers) in enumerate(run["rounds"]):
        seconds = run["seconds"] | {"draft": run["seconds"]["draft"] * len(drafted)}
        columns: dict[str, Any] = {}
        if numbers:
            columns = dict(zip(NUMBERS, map(list, zip(*numbers, strict=True)), strict=True))
        block = (drafted[:accepted] + [token])[:kept]
        rounds.append(Round(0, index, position, drafted, accepted, token, kind, block, ended, seconds, **columns))
        position += kept
    return Trace(rounds, k, [prompt])


def _short(value: float) -> float:
    return round(value, 4)


@dataclass(frozen=True)
class Text:
    """One text; a number for each new token."""

    prompt: list[int]
    tokens: list[int]
    chance: list[float]  # that it was drafted and kept, given that it is in the text: min(1, p_draft / p_target)
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


def load_places(file: Path = PLACES) -> dict[float, Places]:
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
