"""Runs of `specdec targets` that are kept in the package, each with its hardware, versions and date.

`recorded/` holds what `specdec targets --json` wrote, as it wrote it. Nothing in there is made up, and
where no run on a GPU is kept that is what is said.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "recorded"


@dataclass(frozen=True)
class Recording:
    """One file."""

    file: str  # its name
    data: dict[str, Any]  # all that it holds: see `targets.report`

    @property
    def gpu(self) -> str | None:
        """Its name; None for a run on a processor."""
        return self.data["hardware"]["gpu"]

    @property
    def date(self) -> str:
        """Year, month and day."""
        return self.data["date"][:10]

    @property
    def machine(self) -> str:
        """Hardware and versions on one line."""
        hardware, versions = self.data["hardware"], self.data["versions"]
        if self.gpu:
            where = f"{self.gpu} (driver {hardware['driver'] or 'unknown'}, CUDA {hardware['cuda']})"
        else:
            where = f"{hardware['processor']}, {hardware['processors']} processors, no GPU"
        return f"{where}; torch {versions['torch']}, transformers {versions['transformers']}"

    @property
    def verdicts(self) -> str:
        """How many goals were met, not met and not measured."""
        verdicts = [each["met"] for each in self.data["goals"]]
        counts = {"met": verdicts.count(True), "not met": verdicts.count(False), "not measured": verdicts.count(None)}
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count)

    def figure(self, part: str, name: str) -> dict[str, float] | None:
        """A figure's median, low and high; None where it was not measured."""
        return ((self.data["parts"].get(part) or {}).get("figures") or {}).get(name)

    def __str__(self) -> str:
        return f"{self.machine}, {self.date}: {self.verdicts} ({self.file})"


def recorded_runs(folder: Path = FOLDER) -> list[Recording]:
    """Every run that is kept, the oldest first.

    Raises:
        ValueError: a file that `specdec targets` did not write.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path.name} among the recorded runs is no JSON: {error}") from None
        if not isinstance(data, dict) or data.get("what") != "specdec targets":
            raise ValueError(f"{path.name} among the recorded runs was not written by specdec targets --json")
        found.append(Recording(path.name, data))
    return sorted(found, key=lambda each: each.data["date"])


def recorded_on_gpus(folder: Path = FOLDER) -> str:
    """Which runs on a GPU are kept, a line for each, or that there is none."""
    runs = [each for each in recorded_runs(folder) if each.gpu]
    if not runs:
        return "No run on a GPU is recorded. `specdec targets --device cuda --json FILE` makes one."
    return "\n".join(["Recorded on a GPU:", *(f"  {each}" for each in runs)])
