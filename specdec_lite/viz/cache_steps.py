"""A run seen from its caches: after each step of a round, which token lies in which slot, and who sees it.

`snapshots` replays a trace as the loop ran it; nothing here asks a model. Three rows stand under one
axis of positions: the text, the target's cache, the draft's cache.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..trace import Round, Trace
from .theme import BLUE, GREEN, GREY, INK, KINDS, ORANGE, PAPER, template, uid

if TYPE_CHECKING:
    import plotly.graph_objects as go

Decode = Callable[[list[int]], str]

PHASES = ("draft", "verify", "judge", "rewind")
BEFORE = 5  # positions shown before the last token of the text
LONGEST = 8  # characters of a token that fit a slot
HEIGHT = 0.74  # of a slot
OUT = -100  # a place out of the picture: each state keeps one slot there, and so its line in the legend


@dataclass(frozen=True)
class Look:
    """How one state of a slot looks: a colour, a pattern and a mark, so that it is known without colour too."""

    meaning: str
    colour: str
    tint: str
    pattern: str
    mark: str


LOOKS = {
    "kept": Look("a token of the text", GREEN, "#DDF3EC", "", ""),
    "new": Look("of the text, new in this step", BLUE, "#D6E8F5", "/", "+"),
    "drafted": Look("a guess, not judged yet", ORANGE, "#FDF0D5", ".", "?"),
    "rejected": Look("not kept, still in sight", KINDS["rejected"].colour, KINDS["rejected"].tint, "\\", "✗"),
    "stale": Look("stale: still there, but masked", GREY, "#E2E2E2", "x", "hidden"),
    "empty": Look("empty", "#BDBDBD", PAPER, "", ""),
}


@dataclass(frozen=True)
class Slot:
    """One place in the text or in a cache."""

    token: int | None
    state: str  # a key of LOOKS
    mark: str = ""  # instead of the look's own


@dataclass(frozen=True)
class Snapshot:
    """What lies where after one step of a round. `held` counts the tokens in sight."""

    round: Round
    phase: str
    text: list[Slot]
    target: list[Slot]
    draft: list[Slot]
    target_held: int
    draft_held: int
    fed: list[int]  # tokens of the text that the draft read before its first guess

    @property
    def start(self) -> int:
        """Tokens in the text before the round."""
        return self.round.position


@dataclass
class Cache:
    """The tokens in the slots of one cache, and how many are in sight."""

    slots: list[int]
    held: int

    def read(self, tokens: Sequence[int]) -> None:
        self.slots[self.held : self.held + len(tokens)] = tokens
        self.held += len(tokens)

    def look(self, text: int, before: int, kept: int | None = None) -> list[Slot]:
        """Its slots, when the text had `text` tokens and the first `before` of them had been read already.

        Args:
            kept: how many tokens the verdict leaves in the text; None before the verdict.
        """
        return [Slot(token, self._state(j, text, before, kept)) for j, token in enumerate(self.slots)]

    def _state(self, j: int, text: int, before: int, kept: int | None) -> str:
        if j >= self.held:
            return "stale"
        if kept is not None:
            return "kept" if j < kept else "rejected"
        return "kept" if j < before else "new" if j < text else "drafted"


def snapshots(trace: Trace) -> list[Snapshot]:
    """Four for each round: after drafting, verifying, judging and rewinding.

    Raises:
        ValueError: the trace has several rows, or no prompt.
    """
    if len(trace.prompts) != 1:
        raise ValueError(f"shows one text at a time, and this trace has {len(trace.prompts)}: decode one prompt")
    text = list(trace.prompts[0])
    target, draft = Cache(text[:-1], len(text) - 1), Cache(text[:-1], len(text) - 1)
    made: list[Snapshot] = []
    for each in trace.rounds:
        made += _round(each, text, target, draft)
        text += each.kept
    return made


def _round(each: Round, text: list[int], target: Cache, draft: Cache) -> list[Snapshot]:
    """The four snapshots of a round; the caches are moved on."""
    n, k, held = len(text), len(each.drafted), (target.held, draft.held)
    fed = text[draft.held :] if k else []
    if k:
        draft.read([*fed, *each.drafted[:-1]])
    told = [Slot(token, "kept") for token in text]
    guesses = [Slot(token, "drafted") for token in each.drafted]
    made: list[Snapshot] = []

    def take(phase: str, row: list[Slot], looks: list[list[Slot]]) -> None:
        made.append(Snapshot(each, phase, row, *looks, target.held, draft.held, fed))

    take("draft", told + guesses, [target.look(n, n), draft.look(n, held[1])])
    target.read([text[-1], *each.drafted])
    take("verify", told + guesses, [target.look(n, held[0]), draft.look(n, n)])
    accepted = min(each.accepted, len(each.kept))
    judged = [_verdict(token, i, accepted) for i, token in enumerate(each.drafted)]
    take("judge", told + judged, [cache.look(n, n, n + accepted) for cache in (target, draft)])
    end = n + len(each.kept)
    target.held, draft.held = end - 1, min(draft.held, end - 1)
    kept = [Slot(t, "new", KINDS[kind].mark) for t, kind in zip(each.kept, each.kept_kinds(), strict=True)]
    take("rewind", told + kept, [cache.look(end, end, end) for cache in (target, draft)])
    return made


def _verdict(token: int, i: int, accepted: int) -> Slot:
    if i < accepted:
        return Slot(token, "kept", KINDS["accepted"].mark)
    return Slot(token, "rejected", "✗" if i == accepted else "not judged")


# Words


def step_sentence(at: Snapshot, decode: Decode, rounds: int) -> str:
    """What one step did, in words and numbers: two lines."""

    def quoted(tokens: Sequence[int]) -> str:
        return ", ".join(repr(decode([token])) for token in tokens) or "nothing"

    each, k, n = at.round, len(at.round.drafted), at.start
    head = f"Round {each.index + 1} of {rounds}, {at.phase}: "
    holds = f"Target's cache: {at.target_held} tokens in sight. Draft's: {at.draft_held}."
    if at.phase == "draft":
        if not k:
            return f"{head}nothing is drafted, since the budget leaves room for one token only.\n{holds}"
        first = f"{quoted(at.fed[:-1])}, which it wrote and never read, and " if len(at.fed) > 1 else ""
        reads = f"the draft reads {first}{quoted(at.fed[-1:])}, and proposes {quoted(each.drafted)}."
        return f"{head}{reads}\n{holds} It has not read its last guess, which has no slot there."
    if at.phase == "verify":
        width = f"{k + 1} tokens, so {k + 1} rows of logits" if k else "one token, so one row of logits"
        return f"{head}the target reads {quoted(_block(at))} in one forward: {width}.\n{holds}"
    writes = f"The target writes {quoted(each.kept[-1:])} ({KINDS[each.kept_kinds()[-1]].mark} {each.kept_kinds()[-1]})"
    if at.phase == "judge":
        accepted = min(each.accepted, len(each.kept))
        verdict = f"{accepted} of {k} guesses are kept" if k else "there is nothing to judge"
        if accepted < k:
            verdict += f", {quoted([each.drafted[accepted]])} is rejected"
            verdict += f", {k - accepted - 1} after it not judged" if accepted + 1 < k else ""
        return f"{head}{verdict}. {writes}.\nNothing has moved yet. {holds}"
    end = n + len(each.kept)
    behind = end - at.draft_held
    gap = f" The draft lacks {behind} tokens of it: {quoted(_last(at, behind))}." if behind > 1 else ""
    return f"{head}the text has {end} tokens, {len(each.kept)} of them new.\n{holds}{gap}"


def _block(at: Snapshot) -> list[int]:
    """What the target reads in this round."""
    last = at.text[at.start - 1].token
    return [last, *at.round.drafted] if last is not None else []


def _last(at: Snapshot, n: int) -> list[int]:
    return [slot.token for slot in at.text[-n:] if slot.token is not None]


def short(text: str) -> str:
    """A token in a few characters, with blanks and line breaks visible."""
    text = re.sub(r" {2,}", lambda found: f"␣{len(found[0])}", text.replace("\n", "⏎"))
    text = text.strip() if text.strip() else "␣"
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


# Picture


def cache_steps(at: Snapshot, decode: Decode, k: int) -> go.Figure:
    """One step as a figure. `k` is the most that a round drafts: it sets how many positions are shown."""
    import plotly.graph_objects as go

    return go.Figure(cache_parts(at, decode, k), layout_template=template())


def cache_parts(at: Snapshot, decode: Decode, k: int) -> dict[str, Any]:
    """The picture as plain data and layout; every step gives traces of the same make."""
    width = BEFORE + k + 2
    first = max(0, at.start - BEFORE)
    rows = {2: at.text, 1: at.target, 0: at.draft}
    cells: dict[str, list[tuple[int, int, Slot]]] = {name: [(OUT, 0, Slot(None, name))] for name in LOOKS}
    for y, slots in rows.items():
        shown = slots[first : first + width]
        shown = shown + [Slot(None, "empty")] * (width - len(shown))
        for x, slot in enumerate(shown, start=first):
            if y < 2 or slot.state != "empty":  # the text is no cache: nothing waits behind it
                cells[slot.state].append((x, y, slot))
    ends = [(at.target_held, 1), (at.draft_held, 0)]
    labels = ["the draft's cache", "the target's cache", "the text"]
    counts = [f"{at.draft_held} in sight", f"{at.target_held} in sight", f"{_tokens_of_text(at)} tokens"]
    layout = dict(
        height=330,
        barmode="overlay",
        margin=dict(t=42, b=96, l=120, r=12),
        xaxis=dict(
            range=[first - 0.6, first + width - 0.4], dtick=1, ticks="", showgrid=False, showline=False,
            title=dict(text="position in the text, and slot in both caches"),
        ),
        yaxis=dict(
            range=[-0.55, 2.5], tickvals=[0, 1, 2], ticks="", showgrid=False, showline=False,
            ticktext=[f"<b>{label}</b><br>{count}" for label, count in zip(labels, counts, strict=True)],
        ),
        annotations=[_head(f"<b>Round {at.round.index + 1}, {at.phase}</b>")],
        legend=dict(y=-0.27, entrywidth=238, traceorder="normal"),
        meta=dict(alt=step_sentence(at, decode, at.round.index + 1).replace("\n", " ")),
    )  # fmt: skip
    return dict(data=[_bars(name, found, decode) for name, found in cells.items()] + [_ends(ends)], layout=layout)


def _tokens_of_text(at: Snapshot) -> int:
    return len(at.text) if at.phase == "rewind" else at.start


def _bars(name: str, cells: Sequence[tuple[int, int, Slot]], decode: Decode) -> dict[str, Any]:
    """All slots of one state."""
    look = LOOKS[name]
    pattern = dict(shape=look.pattern, fgcolor=look.colour, bgcolor=look.tint, size=9, solidity=0.14, fgopacity=0.45)
    return dict(
        type="bar", name=look.meaning, uid=uid("cache", name), width=0.92, orientation="v",
        x=[x for x, _, _ in cells], y=[HEIGHT for _ in cells], base=[y - HEIGHT / 2 for _, y, _ in cells],
        text=[_words(slot, look, decode) for _, _, slot in cells], textposition="inside", insidetextanchor="middle",
        textangle=0, textfont=dict(color="#555555" if name == "stale" else INK, size=12), hoverinfo="text",
        hovertext=[_hover(x, slot, decode) for x, _, slot in cells],
        marker=dict(color=look.tint, line=dict(color=look.colour, width=1.5), pattern=pattern), cliponaxis=False,
    )  # fmt: skip


def _words(slot: Slot, look: Look, decode: Decode) -> str:
    if slot.token is None:
        return ""
    token = short(decode([slot.token])).replace("&", "&amp;").replace("<", "&lt;")
    token = f"<s>{token}</s>" if slot.state == "stale" else f"<b>{token}</b>"
    return f"{token}<br>{slot.mark or look.mark or ' '}"


def _hover(x: int, slot: Slot, decode: Decode) -> str:
    if slot.token is None:
        return f"slot {x}: empty"
    return f"position {x}: {decode([slot.token])!r}, {LOOKS[slot.state].meaning}"


def _ends(ends: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """A thick line after the last slot in sight, in each cache."""
    x = [each for held, _ in ends for each in (held - 0.5, held - 0.5, None)]
    y = [each for _, row in ends for each in (row - 0.47, row + 0.47, None)]
    return dict(
        type="scatter", mode="lines", name="end of what the model sees", uid=uid("cache", "ends"), x=x, y=y,
        line=dict(color=INK, width=4), hoverinfo="skip", connectgaps=False,
    )  # fmt: skip


def _head(text: str) -> dict[str, Any]:
    place = dict(x=0, y=1.02, xref="paper", yref="paper", xanchor="left", yanchor="bottom")
    return place | dict(text=text, showarrow=False, font=dict(size=15))
