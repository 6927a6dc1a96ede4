"""Fair timing, the prompts it uses, and what `specdec bench` writes. No time is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
from fake_clock import STUMBLE, Clock, Paced

import specdec_lite as sd
from specdec_lite.bench import compare as bench
from specdec_lite.bench import race
from specdec_lite.bench import runners as runners
from specdec_lite.bench.runners import bare, own, theirs
from specdec_lite.bench.timing import (
    Spread,
    Timings,
    forward_seconds,
    interleave,
    interleave_options,
    repeated,
    second_call,
)
from specdec_lite.cli import main
from specdec_lite.decoding import Decoded
from specdec_lite.pocket.corpus import train_tokenizer
from specdec_lite.pocket.prompts import BUILT_IN, held_out_files, held_out_prompts

NEW = 8


@pytest.fixture(scope="module")
def pair() -> sd.Pair:
    """Tiny models with an end of text that greedy decoding would reach, were it not switched off."""
    target = tiny.llama().float()
    draft = tiny.noisy(target, 0.1)
    for module in (target, draft):
        module.generation_config.eos_token_id = list(range(tiny.VOCAB))
    return sd.load_pair(target, draft, tokenizer=tiny.tokenizer())


@pytest.fixture(scope="module")
def folders(pair: sd.Pair, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    pair.target.module.save_pretrained(folder / "target")
    pair.draft.module.save_pretrained(folder / "draft")
    pair.tokenizer.save_pretrained(folder / "target")
    return ["--target", str(folder / "target"), "--draft", str(folder / "draft")]


def test_contestants_take_turns_and_nobody_always_goes_first():
    calls: list[tuple[str, int, int]] = []

    def runner(name: str):
        def run(case: int, turn: int) -> int:
            calls.append((name, case, turn))
            return 10 + case

        return run

    timings = interleave({name: runner(name) for name in "abc"}, cases=2, rounds=3, warm_up=1)
    assert len(calls) == 3 + 3 * 2 * 3  # one warm-up each, then all of it
    steps = [calls[i : i + 3] for i in range(0, len(calls), 3)]
    assert all({name for name, _, _ in step} == set("abc") for step in steps)
    assert all(len({(case, turn) for _, case, turn in step}) == 1 for step in steps)
    assert {step[0][0] for step in steps} == set("abc")
    assert timings.tokens == {name: [[10, 11]] * 3 for name in "abc"}
    assert all(len(turn) == 2 and min(turn) >= 0 for name in "abc" for turn in timings.seconds[name])


def test_every_case_is_warmed_up_where_each_brings_shapes_of_its_own():
    calls: list[tuple[int, int]] = []
    timings = interleave({"a": lambda case, turn: calls.append((case, turn)) or 1}, cases=3, rounds=2, every_case=True)
    assert calls == [(0, 0), (1, 0), (2, 0)] + [(0, 0), (1, 0), (2, 0)] + [(0, 1), (1, 1), (2, 1)]
    assert timings.tokens == {"a": [[1, 1, 1]] * 2}


def test_what_is_recorded_for_each_shape_is_recorded_before_the_clock_runs():
    assert interleave_options(torch.device("cuda"))["every_case"]
    assert not interleave_options(torch.device("cpu"))["every_case"]


def test_a_turn_is_timed_from_an_idle_device_to_an_idle_device(monkeypatch: pytest.MonkeyPatch):
    """What others left in the queue is not one's own, and what one leaves there is."""
    clock = Clock(monkeypatch)
    runners = {name: lambda case, turn, name=name: clock.work(name) and 1 for name in "ab"}
    timings = interleave(runners, rounds=2, wait=clock.wait, progress=lambda done, of: clock.work("a bar", 7.0))
    assert timings.seconds == {"a": [[1.0], [1.0]], "b": [[1.0], [1.0]]}


def test_what_is_short_is_called_once_and_then_timed_and_repeated(monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch)
    assert second_call(lambda: clock.work("short", 0.005), clock.wait) == pytest.approx(0.005)
    turn, count = repeated(lambda: clock.work("shorter", 0.005), 3, clock.wait)
    clock.calls.clear()
    assert (count, turn(0, 0), len(clock.calls)) == (4, 12, 4)


def test_ratios_are_formed_within_a_round():
    timings = Timings(
        seconds={"slow": [[1.0, 1.0], [10.0, 10.0], [2.0, 2.0]], "fast": [[0.5, 0.5], [5.0, 5.0], [0.5, 0.5]]},
        tokens={"slow": [[10, 10]] * 3, "fast": [[10, 10]] * 3},
    )
    assert timings.rates("slow") == [10.0, 1.0, 5.0]
    assert timings.rate("slow").median == 5.0
    assert timings.ratio("fast", "slow") == Spread(2.0, 2.0, 3.0)
    assert timings.tokens_made("fast") == 60
    assert Spread.of([4.0]) == Spread(4.0, 4.0, 4.0)


def test_forwards_are_timed_for_each_width(pair: sd.Pair):
    took = forward_seconds({"target": pair.target, "draft": pair.draft}, {"target": [1, 5], "draft": [1]}, rounds=2)
    assert {role: list(widths) for role, widths in took.items()} == {"target": [1, 5], "draft": [1]}
    assert all(seconds > 0 for widths in took.values() for seconds in widths.values())


def test_forwards_are_timed_warm_and_their_middle_is_taken(monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch)
    models = {name: Paced(clock, name, lambda batch, n: 2.0 + n) for name in ("target", "draft")}
    wanted = {"target": {1: 3.0, 5: 7.0}, "draft": {1: 3.0}}
    assert forward_seconds(models, {"target": [1, 5], "draft": [1]}, rounds=1) == wanted
    clock.counts.clear()
    clock.slow = {0, 4}
    assert forward_seconds(models, {"target": [1, 5], "draft": [1]}, rounds=3) == wanted


# The contest, with runners of whom only the time exists

PROMPTS = [[1, 2, 3], [4, 5, 6]]
EVERYONE = ["own naive", *(f"own speculative K={k}" for k in (1, 3)), "transformers generate",
            *(f"transformers assisted {each}" for each in ("K=1", "K=3", "heuristic", "default"))]  # fmt: skip


def stand_ins(monkeypatch: pytest.MonkeyPatch, clock: Clock, took: dict[str, list[float]], short: str = "") -> list:
    """Each turn on a prompt takes a second, or what `took` says of it; `short` makes a token less. -> who did what"""
    done: list[tuple[str, list[int], int]] = []

    def decode(name: str, prompt: list[int], seed: int) -> list[int]:
        done.append((name, prompt, seed))
        clock.work(name, took.get(name, [1.0] * 9)[seed // len(PROMPTS)])
        return [0] * (NEW - (name == short))

    def speculative(target: object, drafter: object, prompt: list[int], *, k: int, seed: int, **_: object) -> Decoded:
        name = f"own speculative K={k}" if k else "own naive"
        return Decoded(decode(name, prompt, seed), None, sd.Trace(k=k), 0.0)

    def generate(pair: sd.Pair, new: int, sampling: sd.Sampling, draft: dict | None, prompt: list[int], seed: int):
        if draft is None:
            return decode("transformers generate", prompt, seed)
        kind = draft.get("num_assistant_tokens_schedule", "default")
        variant = f"K={draft['num_assistant_tokens']}" if kind == "constant" else kind
        return decode(f"transformers assisted {variant}", prompt, seed)

    monkeypatch.setattr(runners, "speculative", speculative)

    def naive(target: object, prompt: list[int], **how: object) -> Decoded:
        return speculative(target, None, prompt, k=0, **how)

    monkeypatch.setattr(runners, "autoregressive", naive)
    monkeypatch.setattr(runners, "generate", generate)
    return done


def held(pair: sd.Pair, repeats: int) -> bench.Contest:
    settings = bench.BenchSettings(ks=(1, 3), prompts=len(PROMPTS), max_new_tokens=NEW, repeats=repeats)
    return bench.contest(pair, settings, 0.0, PROMPTS, lambda done, of: None)


def test_a_contest_times_nobody_s_first_call(pair: sd.Pair, monkeypatch: pytest.MonkeyPatch):
    """Not the first one of any K either: that may load, compile or record something."""
    clock = Clock(monkeypatch)
    stand_ins(monkeypatch, clock, {})
    made = held(pair, repeats=1)
    assert made.timings.seconds == {name: [[1.0, 1.0]] for name in EVERYONE}


def test_a_contest_takes_turns_on_one_prompt_with_one_seed(pair: sd.Pair, monkeypatch: pytest.MonkeyPatch):
    done = stand_ins(monkeypatch, Clock(monkeypatch), {})
    held(pair, repeats=3)
    turns = [done[i : i + len(EVERYONE)] for i in range(0, len(done), len(EVERYONE))]
    assert all({name for name, _, _ in turn} == set(EVERYONE) for turn in turns)
    assert [turn[0][1:] for turn in turns] == [(PROMPTS[0], 0), *((PROMPTS[seed % 2], seed) for seed in range(6))]
    assert all(len({str(given) for _, *given in turn}) == 1 for turn in turns)


def test_a_contest_is_decided_by_the_middle_of_its_rounds(pair: sd.Pair, monkeypatch: pytest.MonkeyPatch):
    """A machine that is slow for a moment, once for all and once for one runner alone, changes nothing."""
    took = {name: [2.0, 2.0 * STUMBLE, 2.0] for name in EVERYONE}
    took["own speculative K=3"] = [1.0, STUMBLE, 50.0]
    stand_ins(monkeypatch, Clock(monkeypatch), took)
    made = held(pair, repeats=3)
    assert made.best("own speculative") == "own speculative K=1"  # two of three turns of K=3 were slow
    took["own speculative K=3"] = [1.0, 50.0, 1.0]
    made = held(pair, repeats=3)
    assert made.best("own speculative") == "own speculative K=3"
    heads = made.headlines()
    assert heads["speculative_over_naive"]["median"] == heads["speculative_over_assisted"]["median"] == 2.0
    assert heads["naive_over_generate"] == {
        "of": "own naive", "over": "transformers generate", "median": 1.0, "low": 1.0, "high": 1.0
    }  # fmt: skip
    assert made.timings.rate("own naive").median == NEW / 2.0


@pytest.mark.parametrize("short", EVERYONE)
def test_who_makes_fewer_tokens_does_not_compare(short: str, pair: sd.Pair, monkeypatch: pytest.MonkeyPatch):
    stand_ins(monkeypatch, Clock(monkeypatch), {}, short)
    with pytest.raises(RuntimeError, match=f"made different numbers of tokens.*'{short}': {2 * (NEW - 1)}\\b"):
        held(pair, repeats=1)


# The race of the demonstration


def test_both_sides_of_a_race_run_to_its_end(pair: sd.Pair):
    """Past the model's own end of text, where a decoding that is not timed ends."""
    settings = race.RaceSettings(prompt="abcd", k=2, repeats=1)
    for drafter in (None, sd.ModelDrafter(pair.draft)):
        assert sum(len(each.kept) for each in race.rounds_of(pair, settings, drafter)) == 1
    made = race.race(pair, settings, NEW)
    assert len(made.naive.tokens) == len(made.fast.tokens) == NEW
    assert made.timings.tokens == {"naive": [[NEW]], "speculative": [[NEW]]}


def raced(pair: sd.Pair, monkeypatch: pytest.MonkeyPatch, slow: set[int], repeats: int) -> tuple[race.Race, Clock]:
    """Naive decoding takes two seconds, speculation one."""
    clock = Clock(monkeypatch, race)
    clock.slow = slow

    def stand_in(name: str, seconds: float):
        return lambda *given, **how: clock.work(name, seconds) and Decoded([0] * NEW, None, sd.Trace(), 0.0)

    monkeypatch.setattr(race, "autoregressive", stand_in("naive", 2.0))
    monkeypatch.setattr(race, "speculative", stand_in("speculative", 1.0))
    monkeypatch.setattr(race, "forward_seconds", lambda *given, **how: {})
    return race.race(pair, race.RaceSettings(repeats=repeats), NEW), clock


def test_a_race_is_run_warm_and_in_turn(pair: sd.Pair, monkeypatch: pytest.MonkeyPatch):
    made, _ = raced(pair, monkeypatch, {0}, repeats=1)
    assert made.timings.seconds == {"naive": [[2.0]], "speculative": [[1.0]]}
    assert made.speed_up == Spread(2.0, 2.0, 2.0)
    made, clock = raced(pair, monkeypatch, {0, 2}, repeats=3)
    assert all(set(turn) == {"naive", "speculative"} for turn in clock.turns(2))
    assert made.speed_up.median == 2.0
    assert [len(each) for each in made.timings.seconds.values()] == [3, 3]
    assert made.timings.rate("naive").median == NEW / 2.0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_everyone_makes_the_same_number_of_tokens(pair: sd.Pair, temperature: float):
    sampling = sd.Sampling(temperature=temperature)
    everyone = own(pair, [1, 3], NEW, sampling) + theirs(pair, [1, 3], NEW, sampling)
    made = {each.name: list(each.run(tiny.PROMPT, 0)) for each in everyone}
    assert set(map(len, made.values())) == {NEW}, made
    assert list(made) == [
        "own naive", "own speculative K=1", "own speculative K=3", "transformers generate", "transformers assisted K=1",
        "transformers assisted K=3", "transformers assisted heuristic", "transformers assisted default",
    ]  # fmt: skip
    if temperature == 0:
        assert len(set(map(tuple, made.values()))) == 1, made
    else:  # the seed decides, and the global random state is as it was
        before = torch.get_rng_state()
        for each in everyone:
            assert list(each.run(tiny.PROMPT, 0)) == made[each.name]
        assert torch.equal(torch.get_rng_state(), before)


def test_a_fixed_k_is_what_transformers_drafts(pair: sd.Pair):
    """The target sees K + 1 tokens a forward until the end is near: neither schedule nor confidence takes part."""
    runner = theirs(pair, [3], 20, sd.Sampling(temperature=0))[1]
    assert runner.name == "transformers assisted K=3"
    widths = []
    hook = pair.target.module.register_forward_pre_hook(
        lambda _, __, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    runner.run(tiny.PROMPT, 0)
    hook.remove()
    assert widths[0] == len(tiny.PROMPT) + 3
    assert len(widths) > 5
    assert set(widths[1:-3]) == {4}, widths


def test_transformers_runs_leave_the_modules_as_they_were(pair: sd.Pair):
    modules = (pair.target.module, pair.draft.module)
    before = [module.generation_config.to_dict() for module in modules]
    for each in theirs(pair, [2], NEW, sd.Sampling()):
        each.run(tiny.PROMPT, 0)
    assert [module.generation_config.to_dict() for module in modules] == before
    assert bare(pair.draft).generation_config.num_assistant_tokens is None


def test_prompts_are_the_same_every_time_and_held_out():
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in held_out_files()]
    tokenizer = train_tokenizer(["def f(self):\n    return self\n"], 280)
    prompts = held_out_prompts(tokenizer, 12, length=24)
    assert prompts == held_out_prompts(tokenizer, 12, length=24)
    assert len({tuple(prompt) for prompt in prompts}) == 12
    assert set(map(len, prompts)) == {24}
    for prompt in prompts:
        text = tokenizer.decode(prompt)
        assert text.lstrip().startswith(("def ", "class ", "async def "))
        assert any(text in source for source in texts)


def test_too_few_places_for_prompts_is_said(tmp_path: Path):
    (tmp_path / "one.py").write_text("def f():\n    pass\n")
    with pytest.raises(FileNotFoundError, match="has 0 places for a prompt"):
        held_out_prompts(tiny.tokenizer(), 3, root=tmp_path)


def test_built_in_prompts_end_within_a_line():
    assert all(prompt == prompt.rstrip() for prompt in BUILT_IN)


def test_bench_prints_and_writes(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "bench.json"
    sizes = ["--k", "3", "1", "--temperatures", "0", "1", "--prompts", "2", "--max-new-tokens", str(NEW)]
    assert main(["bench", *folders, *sizes, "--repeats", "2", "--json", str(file)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\033" not in out
    for words in ("own naive / transformers generate", "greedy", "temperature 1", "one forward of the", "middle half"):
        assert words in out
    data = json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert data["machine"] == sd.environment()
    assert data["settings"]["ks"] == [1, 3]
    assert list(data["forward_seconds"]["target"]) == ["1", "2", "4"]
    assert [contest["temperature"] for contest in data["contests"]] == [0.0, 1.0]
    for contest in data["contests"]:
        assert len(contest["contestants"]) == 8
        for entry in contest["contestants"]:
            assert entry["tokens"] == [[NEW, NEW], [NEW, NEW]]
            assert [len(turn) for turn in entry["seconds"]] == [2, 2]
            assert (entry["mean_overlap"] is None) == (entry["family"] != "own speculative")
        heads = contest["headlines"]
        assert set(heads) == {"speculative_over_naive", "naive_over_generate", "speculative_over_assisted"}
        assert heads["speculative_over_naive"]["of"] in ("own speculative K=1", "own speculative K=3")


def test_bench_of_one_side(folders: list[str], capsys: pytest.CaptureFixture[str]):
    sizes = ["--k", "2", "--temperatures", "0", "--prompts", "1", "--max-new-tokens", "6", "--repeats", "1"]
    assert main(["bench", *folders, *sizes, "--only", "own"]) == 0
    out = capsys.readouterr().out
    assert "own speculative K=2 / own naive" in out
    assert "transformers assisted" not in out
