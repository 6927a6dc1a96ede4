"""Where people met the museum's bugs: threads of public projects, as they stood on the day they were read.

stories.json holds one entry a thread. A story ages: its status is that of `read`, in a stored copy of GitHub.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Relation = Literal["this bug", "a relative", "a repair", "a way out", "a false alarm", "an answer", "disputed"]


@dataclass(frozen=True)
class Story:
    """One thread about one exhibit."""

    exhibit: str  # its name in `MUSEUM`
    project: str  # owner/name on GitHub
    number: int  # of the issue or pull request
    status: Literal["open", "closed", "merged"]
    read: str  # the day, YYYY-MM-DD
    relation: Relation
    said: str

    @property
    def link(self) -> str:
        """Markdown. GitHub leads from an issue's address to the pull request of that number."""
        return f"[{self.project.split('/')[1]}#{self.number}](https://github.com/{self.project}/issues/{self.number})"


STORIES: Sequence[Story] = tuple(
    Story(**each) for each in json.loads(Path(__file__).with_name("stories.json").read_text(encoding="utf-8"))
)


def story_table() -> str:
    """All stories as a Markdown table."""
    rows = ["| exhibit | thread | status | it is | what was said there |", "|---|---|---|---|---|"]
    before = ""
    for each in STORIES:
        named = "" if each.exhibit == before else each.exhibit
        rows.append(f"| {named} | {each.link} | {each.status} | {each.relation} | {each.said} |")
        before = each.exhibit
    days = sorted({each.read for each in STORIES})
    return "\n".join([*rows, "", f"Read on {' and '.join(days)}."])
