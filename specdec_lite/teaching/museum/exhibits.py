"""The collection: what is wrong, what it does, and which alarm sees it. Where it happened is in stories.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...acceptance import BlockVerification, SampleAndMatch
from ...drafters.model import ModelDrafter
from .drafting import DraftWith, FavouriteSession, ForgetfulSession, UnfilteredSession
from .rules import FirstFailureEnds, RedrawAfterMismatch, ResampleFromTarget, TriedInTurn
from .setup import Exhibit, GreedyBonus, Setup, SlackRewind
from .surroundings import LastTokenStop, Ledger, OneUniform

MUSEUM: Sequence[Exhibit] = (
    Exhibit(
        "nothing wrong", "exact", lambda target, draft: Setup(target, ModelDrafter(draft)), None,
        "The control: no test may ring.",
    ),
    Exhibit(
        "argmax draft, soft p_draft", "biased",
        lambda target, draft: Setup(target, DraftWith(draft, FavouriteSession)), "enumeration",
        "The favourite looks like the safest guess, so the draft takes it; the rule goes on with the softmax.",
    ),
    Exhibit(
        "p_draft before top-k", "biased",
        lambda target, draft: Setup(target, DraftWith(draft, UnfilteredSession)), "enumeration",
        "Logits are filtered where tokens are drawn, and p_draft is a softmax taken earlier.",
    ),
    Exhibit(
        "resample from the target", "biased",
        lambda target, draft: Setup(target, ModelDrafter(draft), ResampleFromTarget()), "enumeration",
        "The residual looks like a detail, so the replacement is drawn from the target.",
    ),
    Exhibit(
        "redraw after a mismatch", "biased",
        lambda target, draft: Setup(target, ModelDrafter(draft), RedrawAfterMismatch()), "enumeration",
        "The target's own token differs from the draft; it is thrown away, and a fresh one is drawn.",
    ),
    Exhibit(
        "bonus token by argmax", "biased",
        lambda target, draft: Setup(GreedyBonus(target), ModelDrafter(draft)), "enumeration",
        "A round in which all went well ends with the target's favourite instead of a draw.",
    ),
    Exhibit(
        "target cache rewound one too few", "biased",
        lambda target, draft: Setup(SlackRewind(target), ModelDrafter(draft)), "enumeration",
        "Off by one: the rejected token stays in the target's cache, and everything after it shifts.",
    ),
    Exhibit(
        "end of text inside a block", "biased",
        lambda target, draft: Setup(target, ModelDrafter(draft), stops=LastTokenStop), "enumeration",
        "Only the last token of a round is asked whether it ends the text.",
    ),
    Exhibit(
        "penalty remembers rejected tokens", "biased",
        lambda target, draft: Setup(target, ModelDrafter(draft), processor=Ledger), "enumeration",
        "The penalty keeps its own count, and nobody strikes out what was rejected.",
    ),
    Exhibit(
        "one uniform for every position", "biased",
        lambda target, draft: Setup(target, ModelDrafter(draft), streams=OneUniform), "dice",
        "One random number a round, broadcast over the positions.",
    ),
    Exhibit(
        "last draft token not fed", "exact but slow",
        lambda target, draft: Setup(target, DraftWith(draft, ForgetfulSession)), "twin",
        "After full acceptance the draft has never seen its own last token.",
    ),
    Exhibit(
        "draft cache rewound one too few", "exact but slow",
        lambda target, draft: Setup(target, ModelDrafter(SlackRewind(draft))), "twin",
        "The same off by one, in the draft: the text stays right and acceptance falls.",
    ),
    Exhibit(
        "sample and match", "exact",
        lambda target, draft: Setup(target, ModelDrafter(draft), SampleAndMatch()), None,
        "No ratio, no residual: the target draws, and the draft stays if it is the same. Exact; it keeps less.",
    ),
    Exhibit(
        "candidates tried in turn", "exact",
        lambda target, draft: Setup(target, DraftWith(draft, FavouriteSession), TriedInTurn()), None,
        "An argmax draft, and nobody divides by p_draft. Exact: refused candidates are masked, the rest is scaled up.",
    ),
    Exhibit(
        "block verification", "exact",
        lambda target, draft: Setup(target, ModelDrafter(draft), BlockVerification()), None,
        "A position fails its test, and a longer prefix is accepted all the same. Exact; it keeps the most.",
    ),
    Exhibit(
        "block verification, ended by a failure", "biased",
        lambda target, draft: Setup(target, ModelDrafter(draft), FirstFailureEnds()), "enumeration",
        "Nobody goes on after a failed test, as in token rejection: a reviewer may even ask for it.",
    ),
)  # fmt: skip


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


RIGHT = """\
def round(p_target, p_draft, drafted, uniforms, last):
    kept = []
    for i, token in enumerate(drafted):
        chance = min(1, p_target[i][token] / p_draft[i][token])
        if uniforms[i] < chance:
            kept.append(token)
        else:
            left = [max(0, t - d) for t, d in zip(p_target[i], p_draft[i])]
            return kept + [pick([each / sum(left) for each in left], last)]
    return kept + [pick(p_target[len(drafted)], last)]
"""

# Version -> the line that is wrong (0 for none) and what stands there.
VERSIONS: Mapping[str, tuple[int, str]] = {
    "A": (9, "            return kept + [pick(p_target[i], last)]"),
    "B": (5, "        if uniforms[0] < chance:"),
    "C": (10, "    return kept + [p_target[-1].index(max(p_target[-1]))]"),
    "D": (0, ""),
    "E": (8, "            left = [max(0, d - t) for t, d in zip(p_target[i], p_draft[i])]"),
    "F": (4, "        chance = min(1, p_target[i + 1][token] / p_draft[i][token])"),
}


def source(version: str) -> str:
    """The Python of one version. It calls `pick(probs, uniform)`.

    Raises:
        ValueError: there is no such version.
    """
    if version not in VERSIONS:
        raise ValueError(f"version must be one of {list(VERSIONS)}, got {version!r}")
    number, line = VERSIONS[version]
    lines = RIGHT.splitlines()
    if number:
        lines[number - 1] = line
    return "\n".join(lines) + "\n"


def listing(version: str) -> str:
    """The same with line numbers."""
    return "\n".join(f"{number:2}  {line}" for number, line in enumerate(source(version).splitlines(), start=1))
