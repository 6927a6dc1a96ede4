"""The caches of a run, step by step: what is drawn is what the real caches held, and every control answers at once."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from html import escape
from typing import Any

import pytest
import tiny
import torch

import specdec_lite as sd
from specdec_lite import viz
from specdec_lite.kv_cache import KVCache
from specdec_lite.pocket.recorded import load_recorded
from specdec_lite.teaching import toys as sentence
from specdec_lite.viz import explorer as module
from specdec_lite.viz.cache_stepper import CacheStepper
from specdec_lite.viz.cache_steps import LOOKS, OUT, PHASES, cache_parts, short, snapshots, step_sentence
from specdec_lite.viz.explorer import MISSING, WIDGET
from specdec_lite.viz.theme import INK

GREEDY = sd.Sampling(temperature=0)


@pytest.fixture(scope="module")
def recited() -> sd.Trace:
    target, draft = sentence.pair()
    common = dict(max_new_tokens=21, sampling=GREEDY, stop=sd.Stop())
    return sd.speculative(target, sd.ModelDrafter(draft), sentence.ids(sentence.SENTENCE[:3]), k=4, **common).trace


class Watched(sd.TableModel):
    """A table that notes, at each forward, what its cache had in sight and what it reads."""

    def note(self, tokens: torch.Tensor, cache: KVCache) -> None:
        self.seen = getattr(self, "seen", [])
        slots = [] if not cache.layers else cache.layers[0][0][0, 0, :, 0].long().tolist()
        self.seen.append((slots, cache.lengths[0], tokens[0].tolist()))

    def forward(self, tokens: torch.Tensor, cache: KVCache, last_only: bool = False) -> torch.Tensor:
        self.note(tokens, cache)
        return super().forward(tokens, cache, last_only)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [1, 3])
def test_the_replay_is_what_the_real_caches_held(k: int, seed: int) -> None:
    """Before every verification the target's slots, stale ones too, and before every draft the draft's."""
    target, draft = Watched(4, 60, seed=0), Watched(4, 60, seed=1)
    draft.table = target.table + 0.6 * draft.table
    common = dict(max_new_tokens=30, stop=sd.Stop(), seed=seed)
    trace = sd.speculative(target, sd.ModelDrafter(draft), [1, 2, 3], k=k, **common).trace
    steps = [snapshots(trace)[i : i + 4] for i in range(0, 4 * len(trace.rounds), 4)]
    assert len(target.seen) == 1 + len(steps)  # the first one read the prompt
    place = 1
    for (drafted, verified, judged, rewound), (slots, held, tokens) in zip(steps, target.seen[1:], strict=True):
        assert held == drafted.target_held
        assert slots[: len(drafted.target)] == [slot.token for slot in drafted.target]
        assert tokens == [slot.token for slot in verified.target[held : verified.target_held]]
        if drafted.round.drafted:
            _, held, fed = draft.seen[place]
            assert fed == drafted.fed
            assert held + len(fed) + len(drafted.round.drafted) - 1 == drafted.draft_held
            place += len(drafted.round.drafted)
        text = [slot.token for slot in rewound.text]
        for cache, held in ((rewound.target, rewound.target_held), (rewound.draft, rewound.draft_held)):
            assert [slot.token for slot in cache[:held]] == text[:held]
            assert {slot.state for slot in cache[:held]} <= {"kept"}
            assert {slot.state for slot in cache[held:]} <= {"stale"}
        assert judged.target_held == verified.target_held
    assert place == len(draft.seen)
    assert text == [1, 2, 3, *(token for each in trace.rounds for token in each.kept)]


def states(slots: Sequence[Any], first: int) -> list[str]:
    return [slot.state for slot in slots[first:]]


def test_the_first_round_of_the_sentence(recited: sd.Trace) -> None:
    drafted, verified, judged, rewound = snapshots(recited)[:4]
    assert states(drafted.text, 2) == ["kept", *["drafted"] * 4]
    assert states(drafted.draft, 1) == ["kept", "new", "drafted", "drafted", "drafted"]  # the fourth has no slot
    assert states(drafted.target, 0) == ["kept", "kept"]
    assert states(verified.target, 1) == ["kept", "new", *["drafted"] * 4]
    assert states(judged.target, 3) == ["kept", "kept", "rejected", "rejected"]
    assert [slot.mark for slot in judged.text[3:]] == ["●", "●", "✗", "not judged"]
    assert states(rewound.target, 4) == ["kept", "stale", "stale"]
    assert states(rewound.draft, 4) == ["kept", "stale"]
    assert [slot.mark for slot in rewound.text[3:]] == ["●", "●", "▲"]


def test_after_full_acceptance_the_draft_reads_two(recited: sd.Trace) -> None:
    rewound, drafted = snapshots(recited)[7:9]
    assert len(rewound.text) - rewound.draft_held == 2
    assert sentence.say(drafted.fed) == "reads them"
    assert "'reads', which it wrote and never read, and 'them'" in step_sentence(drafted, sentence.say, 6)
    assert "The draft lacks 2 tokens of it: 'reads', 'them'." in step_sentence(rewound, sentence.say, 6)


def test_the_last_round_may_draft_nothing() -> None:
    target, draft = tiny.table_pair()
    trace = sd.speculative(target, sd.ModelDrafter(draft), [1], k=2, max_new_tokens=1, stop=sd.Stop()).trace
    drafted, verified, judged, rewound = snapshots(trace)
    assert "nothing is drafted" in step_sentence(drafted, str, 1)
    assert "one token, so one row" in step_sentence(verified, str, 1)
    assert "nothing to judge" in step_sentence(judged, str, 1)
    assert (rewound.target_held, rewound.draft_held) == (1, 0)


def test_a_stop_cuts_what_is_kept() -> None:
    target, draft = tiny.table_pair()
    stop = sd.Stop(token_ids=[2])
    trace = sd.speculative(target, sd.ModelDrafter(draft), [1], k=4, max_new_tokens=20, stop=stop, seed=5).trace
    last = snapshots(trace)[-1]
    assert [slot.token for slot in last.text][-1] == 2
    assert last.target_held == len(last.text) - 1
    assert step_sentence(last, str, len(trace.rounds))


def test_several_texts_are_refused() -> None:
    target, draft = tiny.table_pair()
    trace = sd.speculative(target, sd.ModelDrafter(draft), [[1], [2]], max_new_tokens=4, stop=sd.Stop()).trace
    with pytest.raises(ValueError, match="one text at a time, and this trace has 2"):
        snapshots(trace)


# Picture


def test_states_are_told_apart_without_colour() -> None:
    signs = {(look.pattern, look.mark) for look in LOOKS.values()}
    assert len(signs) == len(LOOKS) - 1  # kept and empty: one has a word in it
    filled = [look for name, look in LOOKS.items() if name != "empty"]
    assert len({look.pattern for look in filled}) == len(filled)
    assert len({look.meaning for look in LOOKS.values()}) == len(LOOKS)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_words_can_be_read_on_every_ground() -> None:
    for name, look in LOOKS.items():
        ink = "#555555" if name == "stale" else INK
        assert (luminance(look.tint) + 0.05) / (luminance(ink) + 0.05) > (4.5 if name == "stale" else 7), name


def test_every_step_has_the_same_make_and_is_plain_json(recited: sd.Trace) -> None:
    made = [cache_parts(at, sentence.say, 4) for at in snapshots(recited)]
    names = [[trace["uid"] for trace in parts["data"]] for parts in made]
    assert all(each == names[0] for each in names)
    assert len(set(names[0])) == len(names[0])
    for parts in made:
        assert json.loads(json.dumps(parts)) == parts
        for bars in parts["data"][:-1]:
            assert bars["x"][0] == OUT  # keeps its place in the legend
            assert len({len(bars[name]) for name in ("x", "y", "base", "text", "hovertext")}) == 1


def test_the_thick_lines_end_what_is_in_sight(recited: sd.Trace) -> None:
    for at in snapshots(recited):
        parts = cache_parts(at, sentence.say, 4)
        assert parts["data"][-1]["x"][::3] == [at.target_held - 0.5, at.draft_held - 0.5]
        low, high = parts["layout"]["xaxis"]["range"]
        assert low < at.draft_held - 0.5 < high
        assert low < at.target_held - 0.5 < high
        shown = [x for bars in parts["data"][:-1] for x in bars["x"] if x != OUT]
        assert all(low < x < high for x in shown)


@pytest.mark.parametrize(
    ("text", "told"),
    [("the", "the"), ("\n        ", "⏎␣8"), (" =", "="), (" ", "␣"), ("unbearable", "unbeara…"), ("\n\n", "⏎⏎")],
)
def test_a_token_in_a_few_characters(text: str, told: str) -> None:
    assert short(text) == told


def test_what_looks_like_markup_is_escaped() -> None:
    target, draft = tiny.table_pair()
    trace = sd.speculative(target, sd.ModelDrafter(draft), [1], k=2, max_new_tokens=6, stop=sd.Stop()).trace
    words = "".join(
        word for bars in cache_parts(snapshots(trace)[1], lambda _: "<b>&", 2)["data"][:-1] for word in bars["text"]
    )
    assert "&lt;b>&amp;" in words


# Widget


def runs(recited: sd.Trace) -> dict[str, Any]:
    pocket = {each.title: (each.runs[4], str) for each in load_recorded()}
    return {"the sentence": (recited, sentence.say)} | pocket


def same_picture(stepper: CacheStepper) -> bool:
    fresh = stepper.figure()
    return all(
        list(getattr(old, name) or ()) == list(getattr(new, name) or ())
        for old, new in zip(stepper.plot.data, fresh.data, strict=True)
        for name in ("x", "y", "base", "text")
        if name in new
    ) and list(stepper.plot.layout.yaxis.ticktext) == list(fresh.layout.yaxis.ticktext)


def test_every_control_moves_picture_and_readout(recited: sd.Trace) -> None:
    stepper = CacheStepper(runs(recited))
    seen = {stepper.text}
    for move in (
        lambda: stepper.buttons["next"].click(),
        lambda: setattr(stepper.controls["round"], "value", 3),
        lambda: setattr(stepper.controls["step"], "value", "rewind"),
        lambda: stepper.buttons["back"].click(),
        lambda: setattr(stepper.controls["run"], "value", "greedy"),
    ):
        move()  # as a hand does
        assert stepper.text not in seen
        seen.add(stepper.text)
        assert escape(stepper.text.split("\n")[0]) in stepper.readout.value
        assert same_picture(stepper)
    assert stepper.state == dict(run="greedy", round=1, step="draft")
    assert stepper.controls["round"].max == stepper.rounds == len(load_recorded()[0].runs[4].rounds)


def test_back_from_a_longer_run_to_a_shorter_one(recited: sd.Trace) -> None:
    stepper = CacheStepper(runs(recited))
    stepper.move(run="greedy", round=8, step="judge")
    stepper.controls["run"].value = "the sentence"
    assert stepper.state == dict(run="the sentence", round=1, step="draft")
    assert (stepper.controls["round"].value, stepper.controls["round"].max) == (1, 6)
    assert same_picture(stepper)


def test_next_walks_through_every_step_and_stops_at_the_end(recited: sd.Trace) -> None:
    stepper = CacheStepper({"it": (recited, sentence.say)})
    places = [(stepper.state["round"], stepper.state["step"])]
    for _ in range(4 * 6 + 3):
        stepper.next()
        places.append((stepper.state["round"], stepper.state["step"]))
    assert places[:24] == [(round_, step) for round_ in range(1, 7) for step in PHASES]
    assert set(places[24:]) == {(6, "rewind")}
    for _ in range(30):
        stepper.back()
    assert stepper.state["round"] == 1 and stepper.state["step"] == "draft"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (dict(round=7), "round must be one of 1 to 6, got 7"),
        (dict(round=0), "round must be one of 1 to 6"),
        (dict(step="guess"), "step must be one of"),
        (dict(run="another"), "run must be one of"),
        (dict(k=3), "no control"),
    ],
)
def test_a_value_that_is_not_there_is_refused_and_changes_nothing(
    recited: sd.Trace, change: dict[str, Any], told: str
) -> None:
    stepper = CacheStepper({"it": (recited, sentence.say)})
    with pytest.raises(ValueError, match=told):
        stepper.move(**change)
    assert stepper.state == dict(run="it", round=1, step="draft")


def test_a_widget_needs_a_run() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        CacheStepper({})


def test_a_move_takes_less_than_a_tenth_of_a_second(recited: sd.Trace) -> None:
    stepper, moves = CacheStepper(runs(recited)), []
    for move in [stepper.next] * 8 + [lambda: stepper.move(run="greedy"), lambda: stepper.move(run="the sentence")]:
        began = time.process_time()  # the machine may be busy with other tests
        move()
        moves.append(time.process_time() - began)
    assert sorted(moves)[len(moves) // 2] < 0.1, moves


def test_it_shows_its_readout_where_only_text_is_shown(recited: sd.Trace) -> None:
    stepper = CacheStepper({"it": (recited, sentence.say)})
    content = stepper._repr_mimebundle_()
    assert content["text/plain"] == stepper.text
    assert content[WIDGET]["model_id"] == stepper.live.model_id


def test_without_widgets_a_still_figure_and_one_line(recited: sd.Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "live_possible", lambda: False)
    stepper = CacheStepper({"it": (recited, sentence.say)})
    stepper.next()
    content = stepper._repr_mimebundle_()
    assert set(content) == {"application/vnd.plotly.v1+json", "text/plain"}
    assert content["text/plain"] == f"{stepper.text}\n{MISSING}"
    assert viz.cache_steps(stepper.at, sentence.say, 4).layout.meta["alt"].startswith("Round 1 of 1, verify")
