"""`specdec demo`: one text decoded twice before your eyes, naively and speculatively, then timed."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable

from ..drafters import drafter_named
from ..loading.pair import Pair
from ..models import TransformersModel
from ..prompts import to_token_ids
from ..trace import MEANINGS, Round
from .console import Ink, TokenWriter, percent, table
from .machine import environment
from .race import Race, RaceSettings, account, cause, models_of, prompt_of, race, race_report, rounds_of

LOOKS_UP = "copies its draft tokens from the text itself"
ABOUT = {"exit": "takes half of the target's layers", "head": "is a head that reads the target's hidden states"}
SHOWN = ("accepted", "corrected", "bonus")


def run(pair: Pair, settings: RaceSettings, pocket: bool, as_json: bool) -> None:
    """The whole demonstration, on standard output."""
    drafter, lookup = drafter_named(settings.drafter, pair.draft, pair.head), settings.drafter == "lookup"
    if as_json:
        length = sum(len(each.kept) for each in rounds_of(pair, settings, drafter))
        print(json.dumps(race_report(race(pair, settings, length), pair, pocket), indent=2))
        return
    ink = Ink(sys.stdout)
    naive = rounds_of(pair, settings, None)  # refuses what cannot work before anything is written
    describe(ink, models_of(pair, settings), ABOUT.get(settings.drafter, LOOKS_UP))
    how = "greedy" if settings.sampling.greedy else f"temperature {settings.temperature:g}, seed {settings.seed}"
    ink.line(f"  {how}, at most {settings.max_new_tokens} new tokens")
    ink.line()
    ink.line(ink("Naive decoding", "title") + ": the target writes alone, one token a forward")
    ink.line()
    show(ink, pair, settings, naive)
    count = "1 token" if settings.k == 1 else f"{'up to ' * lookup}{settings.k} tokens"
    who = {
        "model": f"the draft model proposes {count}",
        "lookup": f"{count} are looked up in the text",
        "exit": f"the target's first layers propose {count}",
        "head": f"the head proposes {count}",
    }[settings.drafter]
    ink.line(ink("Speculative decoding", "title") + f": {who}, the target verifies them in one forward")
    ink.line()
    legend(ink)
    ink.line()
    length = show(ink, pair, settings, rounds_of(pair, settings, drafter))
    ink.passing(f"Timing both {settings.repeats} times in turn ...")
    result = race(pair, settings, length, warm_up=0)  # both have just run
    ink.passing("")
    conclude(ink, result, pair, pocket)


def describe(ink: Ink, models: dict[str, TransformersModel], drafter: str = LOOKS_UP) -> None:
    """The models and the machine."""
    rows = []
    for role, model in models.items():
        layers = "1 layer " if model.layers == 1 else f"{model.layers} layers"
        rows.append([role, layers, f"{model.parameters / 1e6:.1f} M weights"])
    for line in table(rows):
        ink.line(line)
    if "draft" not in models:
        ink.line(f"  drafter  {drafter}")
    ink.paragraph("", environment(), "note")


def legend(ink: Ink) -> None:
    """What the colours and marks of tokens mean."""
    for kind in SHOWN:
        ink.line(f"  {ink.mark(kind) or ' '}{ink(kind, kind)}{' ' * (9 - len(kind))}  {ink(MEANINGS[kind], 'note')}")


def show(ink: Ink, pair: Pair, settings: RaceSettings, rounds: Iterable[Round]) -> int:
    """Write the text as it grows. -> how many tokens it has"""
    writer = TokenWriter(pair.tokenizer, to_token_ids(prompt_of(pair, settings), pair.target)[0], ink)
    forwards, ended, kinds = 0, None, Counter()
    for each in rounds:
        forwards, ended = forwards + 1, each.ended
        for token, kind in zip(each.kept, each.kept_kinds(), strict=True):
            kinds[kind] += 1
            writer.add(token, kind)
    writer.close()
    ink.line()
    ends = " and ended the text" if ended == "stop" else ""
    line = f"  {forwards} forwards of the target gave {kinds.total()} tokens{ends}"
    if set(kinds) - {"sampled"}:  # something was drafted
        names = {kind: kind for kind in SHOWN} | {
            "sampled": "with nothing drafted" if settings.drafter == "lookup" else "with no room left to draft"
        }
        line += ": " + ", ".join(f"{kinds[kind]} {name}" for kind, name in names.items() if kinds[kind])
    ink.line(line)
    ink.line()
    return kinds.total()


def conclude(ink: Ink, result: Race, pair: Pair, pocket: bool) -> None:
    """The table, whether the texts agree, and what made the difference."""
    naive, fast, gain = result.timings.rate("naive"), result.timings.rate("speculative"), result.speed_up
    trace, settings, several = result.fast.trace, result.settings, result.settings.repeats > 1
    rows = [
        ["", "naive", "speculative"],
        ["tokens a second", f"{naive.median:.1f}", f"{fast.median:.1f}"],
        ["tokens a round", "1.00", f"{trace.tokens_per_round_with_bonus:.2f}"],
        ["acceptance", "", percent(trace.accepted_per_judged)],
        ["speed-up", "1.00", f"{gain.median:.2f}"],
    ]
    notes = [
        "",
        f"{len(result.fast.tokens)} tokens, {'median of ' if several else ''}{settings.repeats} turn{'s' * several}",
        "a round runs the target once",
        "of the draft tokens that were verified",
        f"median over the turns; half of them lie in {gain.low:.2f} to {gain.high:.2f}" if several else "",
    ]
    for i, (line, note) in enumerate(zip(table(rows), notes, strict=True)):
        ink.line((ink(line, "title") if i in (0, len(rows) - 1) else line) + f"   {ink(note, 'note')}")
    ink.line()
    ink.paragraph("Same text?", agreement(result))
    ink.paragraph("The account.", account(result))
    ink.paragraph("The cause.", cause(result, pair, pocket))


def agreement(result: Race) -> str:
    """Whether both ways wrote the same."""
    if not result.settings.sampling.greedy:
        return "Not expected: both are samples of the target's own distribution, drawn with different numbers."
    if result.parting is None:
        return f"Yes, all {len(result.fast.tokens)} tokens are identical."
    return (
        f"No, they part at token {result.parting + 1}: forwards of 1 and of {result.settings.k + 1} tokens round "
        "differently, and that decides between two logits that are all but equal."
    )
