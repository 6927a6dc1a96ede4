"""One record a round, from which every picture, metric and widget is made."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd

Detail = Literal["off", "summary", "full"]
FinishReason = Literal["stop", "length"]
Kind = Literal["corrected", "bonus", "sampled"]  # "sampled": nothing was drafted
Alternatives = list[tuple[int, float]]  # (token, probability), most probable first
NUMBERS = ["p_target", "p_draft", "overlap", "chance", "uniform"]  # of a drafted token
COLUMNS = ["row", "round", "position", "token", "kind", "kept", *NUMBERS]


MEANINGS = {  # what can become of a token
    "accepted": "drafted, and kept",
    "corrected": "written by the target in place of a rejected draft",
    "bonus": "written by the target after a fully accepted draft",
    "rejected": "drafted, and thrown away",
    "sampled": "written by the target alone",
}
MARKS = {"accepted": "●", "corrected": "▲", "bonus": "★", "rejected": "✗", "sampled": "○"}  # in pictures and terminals


@dataclass
class Round:
    """What one round did to one row. Lists named after a distribution run over the drafted tokens.

    Of a draft that was a tree the accepted path comes first, then the other tokens that were tested, then the rest.

    Example:
        >>> target, draft = sd.TableModel(vocab_size=4, seed=0), sd.TableModel(vocab_size=4, seed=1)
        >>> each = next(sd.stream(target, sd.ModelDrafter(draft), [0, 1], k=3, max_new_tokens=8))
        >>> each.kept == each.drafted[: each.accepted] + [each.token]
        True
        >>> each.kept_kinds()
        ['corrected']
    """

    row: int
    index: int
    position: int  # tokens in the text before the round
    drafted: list[int]
    accepted: int  # length of the accepted prefix
    token: int  # the round's last token: corrected, or bonus
    kind: Kind
    kept: list[int]  # what joined the text: accepted + last token, cut at a stop
    ended: FinishReason | None
    seconds: dict[str, float] = field(default_factory=dict)  # "draft", "verify", "rest"; shared by a batch
    p_target: list[float] = field(default_factory=list)  # of each drafted token
    p_draft: list[float] = field(default_factory=list)
    overlap: list[float] = field(default_factory=list)  # sum of min(p_target, p_draft)
    chance: list[float] = field(default_factory=list)  # of passing the rule's test
    uniform: list[float] = field(default_factory=list)  # the number that decided: the test passes when it is below
    top_target: list[Alternatives] = field(default_factory=list)  # at every drafted position and the one after
    top_draft: list[Alternatives] = field(default_factory=list)
    full_target: list[list[float]] = field(default_factory=list)  # only with trace="full"
    full_draft: list[list[float]] = field(default_factory=list)
    parents: list[int] | None = None  # of each drafted token, -1 for those that follow the text; None for a chain
    rejected: int = 1  # tokens that failed their test, unless all passed: in a chain one, in a tree perhaps siblings

    @property
    def judged(self) -> int:
        """Drafted tokens that got a verdict; those after a rejection never do."""
        return min(self.accepted + self.rejected, len(self.drafted))

    @property
    def depths(self) -> list[int]:
        """How far after the text each drafted token stands: 1 for the next one."""
        if self.parents is None:
            return list(range(1, len(self.drafted) + 1))
        found: list[int] = []
        for parent in self.parents:
            found.append(1 if parent < 0 else found[parent] + 1)
        return found

    def kept_kinds(self) -> list[str]:
        """'accepted', 'corrected', 'bonus' or 'sampled' for each kept token."""
        return (["accepted"] * self.accepted + [self.kind])[: len(self.kept)]


@dataclass
class Trace:
    """All rounds of a run, in order; several rows' rounds of a step stand together.

    Example:
        >>> target, draft = sd.TableModel(vocab_size=4, seed=0), sd.TableModel(vocab_size=4, seed=1)
        >>> trace = sd.speculative(target, sd.ModelDrafter(draft), [0, 1], k=2, max_new_tokens=12).trace
        >>> trace.new_tokens, len(trace.rounds)
        (12, 10)
        >>> sd.Trace.from_json(trace.to_json()) == trace
        True
    """

    rounds: list[Round] = field(default_factory=list)
    k: int = 0
    prompts: list[list[int]] = field(default_factory=list)

    def to_frame(self) -> pd.DataFrame:
        """One line for every kept or drafted token: row, round, position, token, kind, and the numbers behind it."""
        import pandas as pd

        return pd.DataFrame([line for each in self.rounds for line in _lines(each)], columns=COLUMNS)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Trace:
        """The trace that `to_json` wrote."""
        data = json.loads(text)
        for each in data["rounds"]:
            for name in ("top_target", "top_draft"):
                each[name] = [[(token, p) for token, p in top] for top in each[name]]
        return cls([Round(**each) for each in data["rounds"]], data["k"], data["prompts"])

    @property
    def new_tokens(self) -> int:
        return sum(len(each.kept) for each in self.rounds)

    @property
    def tokens_per_round_with_bonus(self) -> float:
        """New tokens a round, everything counted."""
        return _ratio(self.new_tokens, len(self.rounds))

    @property
    def tokens_per_round_without_bonus(self) -> float:
        """New tokens a round, without the one that the target adds after a fully accepted draft."""
        kept = sum(kind != "bonus" for each in self.rounds for kind in each.kept_kinds())
        return _ratio(kept, len(self.rounds))

    @property
    def accepted_per_drafted(self) -> float:
        """Accepted over drafted. It falls with k although the draft is no worse: see `accepted_per_judged`."""
        return _ratio(sum(r.accepted for r in self.rounds), sum(len(r.drafted) for r in self.rounds))

    @property
    def accepted_per_judged(self) -> float:
        """Accepted over judged tokens: those after a rejection are censored, not failures."""
        return _ratio(sum(r.accepted for r in self.rounds), sum(r.judged for r in self.rounds))

    @property
    def mean_overlap(self) -> float:
        """Mean of sum(min(p_target, p_draft)) over the judged tokens."""
        judged = [value for each in self.rounds for value in each.overlap[: each.judged]]
        return _ratio(sum(judged), len(judged))

    def acceptance_by_position(self) -> pd.DataFrame:
        """For each place in a draft: how often it was judged, how often accepted, and the ratio."""
        import pandas as pd

        deepest = [max(each.depths, default=0) for each in self.rounds]
        places = range(max(deepest, default=0))
        tested = [min(each.accepted + 1, depth) for each, depth in zip(self.rounds, deepest, strict=True)]
        judged = [sum(depth > i for depth in tested) for i in places]
        accepted = [sum(each.accepted > i for each in self.rounds) for i in places]
        rate = [_ratio(a, j) for a, j in zip(accepted, judged, strict=True)]
        return pd.DataFrame({"position": [i + 1 for i in places], "judged": judged, "accepted": accepted, "rate": rate})

    def time_split(self) -> dict[str, float]:
        """Seconds in draft, verify and the rest; a batch's shared time is counted once."""
        total: dict[str, float] = {}
        for each in first_of_step(self.rounds):
            for part, seconds in each.seconds.items():
                total[part] = total.get(part, 0.0) + seconds
        return total


def first_of_step(rounds: Iterable[Round]) -> Iterable[Round]:
    """One round for each step of a batch, since its rows share the time."""
    last = None
    for each in rounds:
        if each.index != last:
            yield each
        last = each.index


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _lines(each: Round) -> Iterable[dict[str, object]]:
    base = {"row": each.row, "round": each.index}
    for i, (token, depth) in enumerate(zip(each.drafted, each.depths, strict=True)):
        verdict = "accepted" if i < each.accepted else "rejected" if i < each.judged else "not judged"
        numbers = {name: _at(getattr(each, name), i) for name in NUMBERS}
        kept = i < min(each.accepted, len(each.kept))
        position = each.position + depth - 1
        yield base | {"position": position, "token": token, "kind": verdict, "kept": kept} | numbers
    if len(each.kept) > each.accepted:
        yield base | {"position": each.position + each.accepted, "token": each.token, "kind": each.kind, "kept": True}


def _at(values: list[float], i: int) -> float | None:
    return values[i] if i < len(values) else None
