"""The doctor: its count of rounds against enumeration, its prediction on planted times, what it says and writes."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from fake_clock import Clock
from test_eagle import head_for
from test_trace import made as round_made

import specdec_lite as sd
from specdec_lite.bench import diagnosis as doctor
from specdec_lite.bench import trial
from specdec_lite.bench.agreement import agreement
from specdec_lite.bench.diagnosis import Diagnosis, DoctorSettings, as_costs, remedy, verdict
from specdec_lite.bench.phase_costs import PhaseCosts, time_phases
from specdec_lite.bench.phases import PARTS, TimedRun, timed_run
from specdec_lite.bench.prompt_files import read_prompts
from specdec_lite.bench.synthetic import SyntheticDrafter
from specdec_lite.bench.timing import Spread
from specdec_lite.bench.trial import Measured, per_round
from specdec_lite.cli import main
from specdec_lite.draft import Drafter
from specdec_lite.theory import exact
from specdec_lite.theory.cost_model import Costs, Interval, forecast, halved, halved_misses, mean_of_stretches
from specdec_lite.theory.formulas import expected_tokens, speedup
from specdec_lite.theory.replay import Replay, replay, running, steps_until_all_end

PROMPT = [0, 1, 0]
NEW = 4
STEP = {"verify": 1.0, "sample": 0.0, "synchronise": 0.0, "rest": 0.0}


def planted(draft: float = 0.1, verify: float = 1.0, sample: float = 0.0, most: int = 16, **more: float) -> Costs:
    """A naive step takes a second."""
    one = dict(sample=sample, synchronise=0.0)
    drafted = {k: dict(draft=k * draft, verify=1.0 if k == 0 else verify, **one) for k in range(most + 1)}
    return Costs(STEP, drafted, **more)


def totals(account: Replay) -> tuple[float, ...]:
    return account.rounds, account.judged, account.accepted, sum(k * n for k, n in account.drafted.items())


# Counting rounds


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("kind", ["model", "lookup", "head"])
def test_rounds_counted_along_texts_are_those_of_every_path_of_the_real_loop(k: int, kind: str) -> None:
    """No path is decoded speculatively on the left; every one is on the right."""
    target, draft = tiny.table_pair(vocab=2 if kind == "lookup" else 3, noise=1.0)
    drafter: Drafter = sd.PromptLookupDrafter() if kind == "lookup" else sd.ModelDrafter(draft)
    if kind == "head":
        target = sd.TransformersModel(tiny.llama(vocab=3, layers=3), engine="lean")
        drafter = sd.EagleDrafter(head_for(target, [0, 2]))
    counted = [0.0] * 4
    for text, probability in exact.target_distribution(target, PROMPT, max_new_tokens=NEW).items():
        chances = agreement(target, drafter, [*PROMPT, *text], len(PROMPT), sd.Sampling(), k).chances
        (account,) = replay(chances, k)
        counted = [total + probability * each for total, each in zip(counted, totals(account), strict=True)]
    every = list(exact.paths(target, drafter, PROMPT, k=k, max_new_tokens=NEW))
    visited = [
        exact.expectation(every, lambda path: len(path.rounds)),
        exact.expectation(every, lambda path: sum(each.judged for each in path.rounds)),
        exact.expectation(every, lambda path: sum(each.accepted for each in path.rounds)),
        exact.expectation(every, lambda path: sum(len(each.drafted) for each in path.rounds)),
    ]
    assert counted == pytest.approx(visited, abs=1e-9)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_greedy_rounds_are_counted_to_the_round(k: int) -> None:
    target, draft = tiny.pair(0.1)
    common = dict(max_new_tokens=40, sampling=sd.Sampling(temperature=0), stop=sd.Stop())
    deep = sd.TransformersModel(tiny.llama(layers=3), engine="lean")
    head = sd.EagleDrafter(head_for(deep, list(range(0, tiny.VOCAB, 2))))
    pairs = [(target, sd.ModelDrafter(draft)), (target, sd.PromptLookupDrafter()), (deep, head)]
    for target, drafter in pairs:
        made = sd.speculative(target, drafter, tiny.PROMPT, k=k, **common)
        found = agreement(target, drafter, [*tiny.PROMPT, *made.tokens], len(tiny.PROMPT), common["sampling"], 5)
        (account,) = replay(found.chances, k)
        rounds = made.trace.rounds
        drafted = sum(len(each.drafted) for each in rounds)
        judged, accepted = sum(each.judged for each in rounds), sum(each.accepted for each in rounds)
        assert totals(account) == (len(rounds), judged, accepted, drafted)


def test_equal_chances_give_the_closed_form() -> None:
    """Far from the text's end, where nothing is cut short."""
    for k, chance in itertools.product((1, 4), (0.0, 0.6, 1.0)):
        first, *_ = replay(running([chance] * 4000, k), k, stretch=3900)
        assert first.tokens_per_round == pytest.approx(expected_tokens(chance, k), rel=1e-2)
    with pytest.raises(ValueError, match="needs a text and k of at least 0, got 0 places and k=2"):
        replay([], 2)
    with pytest.raises(ValueError, match="must lie between 0 and 1, got \\[1.5\\] at place 0"):
        replay([[1.5], []], 1)


def test_stretches_add_up() -> None:
    chances = running([0.3, 0.9, 0.5, 0.0, 1.0, 0.7, 0.2], 3)
    (whole,), parts, total = replay(chances, 3), replay(chances, 3, stretch=2), Replay()
    for part in parts:
        total.add(part)
    assert len(parts) == 4
    assert total.tokens == 7
    assert totals(total) == pytest.approx(totals(whole))
    assert total.full == pytest.approx(whole.full)


def test_a_batch_waits_for_its_slowest_row() -> None:
    rows, k = [[0.3, 0.9, 0.5, 0.1], [1.0, 0.0, 0.7, 0.6]], 2

    def rounds(verdicts: tuple[bool, ...]) -> int:
        at = count = 0
        while at < len(verdicts):
            asked = min(k, len(verdicts) - at - 1)
            kept = next((i for i in range(asked) if not verdicts[at + i]), asked)
            at, count = at + kept + 1, count + 1
        return count

    expected = 0.0
    for one, other in itertools.product(itertools.product((True, False), repeat=4), repeat=2):
        chance = 1.0
        for row, verdicts in zip(rows, (one, other), strict=True):
            for each, verdict_ in zip(row, verdicts, strict=True):
                chance *= each if verdict_ else 1 - each
        expected += chance * max(rounds(one), rounds(other))
    assert steps_until_all_end([running(row, k) for row in rows], k) == pytest.approx(expected)
    alone = running(rows[0], k)
    assert steps_until_all_end([alone], k) == pytest.approx(replay(alone, k)[0].rounds)


# Predicting


def test_planted_times_give_the_theorem() -> None:
    """Theorem 3.8 of Leviathan et al. 2023, up to the texts' ends."""
    texts = [running([0.8] * 960, 8)] * 2
    costs = planted(draft=0.1, verify=1.2, sample=0.05)
    found = forecast(texts, [costs], range(1, 9), draws=20)
    for k, each in found.outlooks.items():
        assert each.speed_up.value == pytest.approx(speedup(0.8, k, 0.1, 1.2, 0.05), rel=0.02)
        assert each.speed_up.low <= each.speed_up.value <= each.speed_up.high
        assert each.acceptance.value == pytest.approx(0.8)
        assert sum(each.round.values()) == pytest.approx(1.25 + 0.1 * k, rel=0.02)
    assert found.best.k == max(range(1, 9), key=lambda k: speedup(0.8, k, 0.1, 1.2, 0.05))


def test_openings_and_catching_up_are_paid_for() -> None:
    texts = [running([1.0] * 9, 2)]  # three rounds of three tokens, the last with room for two drafts
    costs = planted(draft=0.1, opening=2.0, draft_opening=0.5, catch_up=0.25)
    (each,) = forecast(texts, [costs], [2], draws=0).outlooks.values()
    assert each.speed_up.value == pytest.approx((9 + 2) / (2 + 0.5 + 3 * 1.2 + 2 * 0.25))


def test_the_machine_s_moods_cancel() -> None:
    """A moment in which everything takes thrice as long says the same."""
    slow = Costs(
        {name: 3 * each for name, each in STEP.items()},
        {k: {name: 3 * each for name, each in parts.items()} for k, parts in planted().drafted.items()},
    )
    texts = [running([0.7] * 64, 4)]
    calm, moody = (forecast(texts, costs, [4]) for costs in ([planted()] * 3, [planted(), slow, planted()]))
    assert moody.best.speed_up.value == pytest.approx(calm.best.speed_up.value)


def test_what_lies_between_two_timed_widths_lies_on_the_line() -> None:
    parts = dict(draft=0.0, sample=0.0, synchronise=0.0)
    costs = Costs(STEP, {0: dict(parts, verify=1.0), 4: dict(parts, verify=2.0)})
    assert [costs.piece("verify", k) for k in (0, 1, 4, 9)] == [1.0, 1.25, 2.0, 2.0]


def test_halves() -> None:
    costs = planted(draft=0.2, verify=1.5, sample=0.1, catch_up=0.2)
    assert halved(costs, "draft").piece("draft", 3) == pytest.approx(0.3)
    assert halved(costs, "draft").catch_up == 0.1
    assert halved(costs, "verify").piece("verify", 3) == pytest.approx(1.25)
    assert halved(costs, "other").piece("sample", 3) == pytest.approx(0.05)
    assert halved_misses([[0.5, 1.0], [0.0]]) == [[0.75, 1.0], [0.5]]
    with pytest.raises(ValueError, match="must be 'draft', 'verify' or 'other', got 'luck'"):
        halved(costs, "luck")


def test_a_prediction_needs_something_to_go_by() -> None:
    with pytest.raises(ValueError, match=r"got lengths \[1, 2\], 1 costs and 1 values of k"):
        forecast([[[]], [[0.5], []]], [planted()], [1])
    with pytest.raises(ValueError, match="0 costs"):
        forecast([[[]]], [], [1])


def test_the_mean_overlap_leaves_out_places_without_a_proposal() -> None:
    assert mean_of_stretches([[0.5, None, 1.0], [None]]).value == 0.75
    assert mean_of_stretches([[None], []]) is None


# Advising


def planted_diagnosis(chance: float, costs: Costs, measured: float | None = None, k_max: int = 8) -> Diagnosis:
    texts, ks = [running([chance] * 64, k_max)] * 4, range(1, k_max + 1)
    found = forecast(texts, [costs], ks, draws=50)
    levers = {what: forecast(texts, [halved(costs, what)], ks, 0) for what in ("draft", "verify", "other")}
    levers["acceptance"] = forecast([halved_misses(text) for text in texts], [costs], ks, 0)
    gains = {what: each.best.speed_up.value for what, each in levers.items()}
    gain = Spread.of([measured or found.best.speed_up.value])
    parts = found.best.round
    made = Measured(found.best.k, gain, gain, gain, 1.0, None, 1.0, parts, sum(parts.values()))
    return Diagnosis(DoctorSettings(k_max=k_max), [], Interval(chance, chance, chance), found, gains, made)


@pytest.mark.parametrize(
    ("chance", "costs", "binds", "says"),
    [
        (0.9, planted(draft=0.6), "draft", "a draft that takes half of it"),
        (0.5, planted(draft=0.02), "acceptance", "a draft that errs half as often"),
        (0.9, planted(draft=0.01, verify=4.0), "verify", "verifying up to 9 tokens costs 3.96 naive steps"),
        (0.9, planted(draft=0.01, sample=3.0), "other", "half of the sampling and book-keeping"),
    ],
)
def test_what_binds_is_named(chance: float, costs: Costs, binds: str, says: str) -> None:
    found = planted_diagnosis(chance, costs)
    assert found.binds == binds
    assert says in remedy(found)


def test_speculate_or_not() -> None:
    assert verdict(planted_diagnosis(0.8, planted())).startswith("Speculate with K = ")
    assert verdict(planted_diagnosis(0.2, planted(draft=0.5))).startswith("Do not speculate: the best K tried, 1,")
    by_the_clock = verdict(planted_diagnosis(0.8, planted(), measured=0.9))
    assert by_the_clock.startswith("Do not speculate")
    assert "0.90 times as fast" in by_the_clock
    sure = planted_diagnosis(0.8, planted())
    outlook = sure.forecast.best
    doubtful = replace(outlook, speed_up=Interval(1.1, 0.9, 1.3))
    unsure = replace(sure, forecast=replace(sure.forecast, outlooks={outlook.k: doubtful}))
    assert verdict(unsure).startswith("It may not pay")
    assert "look further with --k-max" in remedy(planted_diagnosis(0.99, planted(draft=0.01), k_max=2))


def test_the_error_is_a_share_of_what_was_measured() -> None:
    found = planted_diagnosis(0.8, planted())
    assert planted_diagnosis(0.8, planted(), found.forecast.best.speed_up.value / 1.25).error == pytest.approx(0.25)


# Timing


def test_a_run_s_parts_are_its_wall_clock_and_its_text_is_the_real_one() -> None:
    target, draft = tiny.pair(0.1)
    how = dict(max_new_tokens=24, sampling=sd.Sampling(temperature=1.0), seed=3)
    for drafter, k in ((sd.ModelDrafter(draft), 3), (None, 0)):
        made = timed_run(target, drafter, [tiny.PROMPT, tiny.PROMPT[1:]], k=k, **how)
        assert made.opening + sum(made.parts.values()) == pytest.approx(made.seconds * (1 - made.gap))
        assert abs(made.gap) < 0.5  # a sum that telescopes: only what lies outside of the first and last mark
        assert set(made.per_step()) == set(PARTS)
        assert made.new_tokens == 48
    plain = sd.speculative(
        target, sd.ModelDrafter(draft), [tiny.PROMPT, tiny.PROMPT[1:]], k=3, stop=sd.Stop(), **how
    )  # fmt: skip
    again = timed_run(target, sd.ModelDrafter(draft), [tiny.PROMPT, tiny.PROMPT[1:]], k=3, **how)
    assert [text[n:] for text, n in zip(again.texts, again.starts, strict=True)] == plain.tokens


def test_a_slow_turn_says_what_the_others_say() -> None:
    target, draft = tiny.pair(0.1)
    how = dict(k=2, max_new_tokens=6, sampling=sd.Sampling(temperature=0), seed=0)
    rounds = {name: timed_run(target, each, [tiny.PROMPT], **how).rounds for name, each in
              (("naive", None), ("fast", sd.ModelDrafter(draft)))}  # fmt: skip

    def planted_run(name: str, mood: float) -> TimedRun:
        parts = dict.fromkeys(PARTS, 0.0) | {"verify": mood * len(rounds[name])}
        if name == "fast":
            parts["draft"] = mood * len(rounds[name]) / 2
        return TimedRun([], [], rounds[name], sum(parts.values()) + mood, mood, parts)

    turns = {name: [[planted_run(name, mood)] for mood in (1.0, 5.0, 1.0)] for name in rounds}
    step, parts, whole = per_round(turns["naive"], turns["fast"])
    assert step == 1.0
    assert (parts["verify"], parts["draft"], parts["rest"]) == pytest.approx((1.0, 0.5, 0.0))
    assert sum(parts.values()) == pytest.approx(whole)


def test_the_trial_is_run_warm_and_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of planted times: a naive step takes a second, and so does a round of two tokens. The first is cold."""
    clock = Clock(monkeypatch)

    def planted_run(target: object, drafter: object, prompts: list, *, k: int, **how: int) -> TimedRun:
        cold = not clock.counts[drafter]
        drafted = k if drafter else 0
        rounds = [round_made(0 if cold else drafted, drafted, index=i) for i in range(2 if drafter else 4)]
        took = clock.work(drafter, float(len(rounds)))
        return TimedRun([], [], rounds, took, 0.0, dict.fromkeys(PARTS, 0.0) | {"verify": took})

    monkeypatch.setattr(trial, "timed_run", planted_run)
    for repeats, clock.slow in ((1, {0}), (3, {0, 3})):
        clock.counts.clear()
        clock.calls.clear()
        target, _ = tiny.pair()
        made = trial.measure(target, "draft", [[1], [2]], 1, new=4, sampling=sd.Sampling(), repeats=repeats)
        assert len(clock.calls) == 2 * (1 + 2 * repeats)
        assert all(set(turn) == {None, "draft"} for turn in clock.turns(2))
        assert (made.speed_up.median, made.naive_rate.median, made.rate.median) == (2.0, 1.0, 2.0)
        assert (made.step, made.round["verify"], made.whole) == (1.0, 1.0, 1.0)
        assert (made.tokens_per_round, made.acceptance.value) == (2.0, 1.0)


def test_the_pieces_of_the_first_turn_only_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, settings = Clock(monkeypatch), DoctorSettings(k_max=2, max_new_tokens=8, repeats=2)
    clock.slow = {0, 1}  # both texts of the first turn

    def planted(name: str):
        return lambda *given, **how: clock.work((name, *given[3:4]) if name == "pieces" else name)

    monkeypatch.setattr(doctor, "naive_run", planted("alone"))
    monkeypatch.setattr(doctor, "time_phases", planted("pieces"))
    monkeypatch.setattr(doctor, "time_opening", planted("opening"))
    monkeypatch.setattr(doctor, "as_costs", lambda *given: given)
    made = doctor.time_costs(None, None, [[1] * 9, [2] * 9], [1, 1], [1, 2], settings)
    assert made == [(1.0, [1.0] * len(doctor.PLACES), 1.0)] * 4
    assert clock.counts["alone"] == 6


def test_a_moment_s_pieces_are_the_middle_of_its_places() -> None:
    alone = TimedRun([], [], [round_made(0, 0)], 1.0, 0.5, dict.fromkeys(PARTS, 1.0))
    timed = [PhaseCosts({1: dict.fromkeys(PARTS, each)}, each) for each in (3.0, 1000.0, 2.0)]
    costs = as_costs(alone, timed, 0.25)
    assert costs.drafted == {1: dict.fromkeys(PARTS, 3.0)}
    assert (costs.catch_up, costs.opening, costs.draft_opening) == (3.0, 0.5, 0.25)


@pytest.mark.parametrize("rows", [1, 2])
def test_pieces_are_timed_for_each_width_and_leave_no_trace(rows: int) -> None:
    target, draft = tiny.pair(0.1)
    for drafter in (sd.ModelDrafter(draft), sd.PromptLookupDrafter(), SyntheticDrafter(draft, 0.5)):
        texts = [[*tiny.PROMPT, *range(20)][row:] for row in range(rows)]
        before = [list(text) for text in texts]
        made = time_phases(target, drafter, texts, 8, [1, 3], sampling=sd.Sampling())
        assert texts == before
        assert list(made.by_drafted) == [0, 1, 3]
        assert all(set(parts) == set(PARTS) - {"rest"} for parts in made.by_drafted.values())
    with pytest.raises(ValueError, match="up to 9 drafted tokens need as many after the cut, got 8"):
        time_phases(target, sd.ModelDrafter(draft), texts, 8, [9], sampling=sd.Sampling())


def test_synthetic_acceptance_is_what_was_set() -> None:
    target, draft = tiny.pair(0.1)
    found = agreement(target, SyntheticDrafter(draft, 0.25), [*tiny.PROMPT, 1, 2, 3], 5, sd.Sampling(), 2)
    assert found.overlap == [0.25] * 3
    assert found.chances == [[0.25, 0.25], [0.25, 0.25], [0.25]]
    how = dict(k=3, max_new_tokens=12, sampling=sd.Sampling(), seed=0)
    assert timed_run(target, SyntheticDrafter(draft, 1.0), [tiny.PROMPT], **how).steps == 3
    assert timed_run(target, SyntheticDrafter(draft, 0.0), [tiny.PROMPT], **how).steps == 12


# The command


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    target = tiny.llama().float()
    target.save_pretrained(folder / "target")
    tiny.noisy(target, 0.1).save_pretrained(folder / "draft")
    tiny.tokenizer().save_pretrained(folder / "target")
    (folder / "prompts.txt").write_text("abcd hi ef\n\nhi ab cd\n", encoding="utf-8")
    models = ["--target", str(folder / "target"), "--draft", str(folder / "draft")]
    return [*models, "--prompts", str(folder / "prompts.txt"), "--max-new-tokens", "16", "--repeats", "1"]


@pytest.mark.parametrize(
    "extra", [[], ["--temperature", "1"], ["--drafter", "lookup"], ["--agreement", "0.7"]], ids=lambda each: str(each)
)
def test_the_command_prints_and_writes(
    extra: list[str], folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, page = tmp_path / "found.json", tmp_path / "budget.html"
    argv = ["doctor", *folders, "--k-max", "3", *extra, "--json", str(file), "--picture", str(page)]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\033" not in out
    words = ["What each K would give", "Where the time of a round goes at K =", "By the clock.", "The advice.", "What"]
    assert all(each in out for each in [*words, *PARTS])
    assert ("synthetic acceptance" in out) == ("--agreement" in extra)
    data = json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert data["machine"] == sd.environment()
    assert len(data["prompts"]) == 2
    assert [each["k"] for each in data["predicted"]] == [1, 2, 3]
    assert set(data["best_k"]) == {"value", "low", "high"}
    assert data["measured"]["k"] == data["best_k"]["value"]
    assert set(data["measured"]["round"]) == {*PARTS, "opening"}
    said = next(each for each in data["predicted"] if each["k"] == data["measured"]["k"])
    ratio = said["speed_up"]["value"] / data["measured"]["speed_up"]["median"]
    assert data["error"] == pytest.approx(ratio - 1)
    assert data["binds"] in data["if_halved"]
    assert data["synthetic_acceptance"] == (0.7 if "--agreement" in extra else None)
    assert page.stat().st_size > 0


def test_a_target_alone_is_examined_with_its_own_text(folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    at = folders.index("--draft")
    assert main(["doctor", *folders[:at], *folders[at + 2 :], "--k-max", "2", "--drafter", "lookup"]) == 0
    out = capsys.readouterr().out
    assert "copies its draft tokens from the text itself" in out and "draft  " not in out.split("Now")[0]


def test_the_picture_tells_the_two_sides_apart_without_colour() -> None:
    from specdec_lite.viz.budget import budget_figure

    figure = budget_figure(planted_diagnosis(0.8, planted()))
    bars = {each.name: each for each in figure.data if each.type == "bar"}
    assert bars["predicted (hatched)"].marker.pattern.shape == "/"
    assert bars["measured (full)"].marker.pattern.shape is None
    assert list(bars["predicted (hatched)"].x) == list(bars["measured (full)"].x)
    assert "was predicted to take" in figure.layout.meta["alt"]


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--k-max", "16"], "give more new tokens, or a k_max of at most 15"),
        (["--k-max", "17"], "must be a whole number from 1 to 16, got '17'"),
        (["--agreement", "1.5"], "must be a number from 0 to 1, got '1.5'"),
        (["--agreement", "0.5", "--drafter", "lookup"], "leave out --drafter lookup"),
        (["--drafter", "psychic"], "invalid choice: 'psychic'"),
        (["--prompts", "/no/such/file"], "--prompts /no/such/file cannot be read"),
        (["--json", "/no/such/folder/file.json"], "there is no folder /no/such/folder"),
        (["--max-new-tokens", "4000"], "4000 new tokens do not fit into the target's context of 160"),
    ],
)
def test_what_it_refuses(extra: list[str], says: str, folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["doctor", *folders, *extra])
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err


def test_prompts_come_one_a_line_or_as_a_list(tmp_path: Path) -> None:
    lines, listed, wrong = (tmp_path / name for name in ("a.txt", "b.json", "c.json"))
    lines.write_text("one\n\n two\n", encoding="utf-8")
    listed.write_text('["one\\ntwo", "three"]', encoding="utf-8")
    wrong.write_text('{"one": 1}', encoding="utf-8")
    assert read_prompts(str(lines)) == ["one", " two"]
    assert read_prompts(str(listed)) == ["one\ntwo", "three"]
    with pytest.raises(ValueError, match="holds no prompts: write one a line, or a list of strings"):
        read_prompts(str(wrong))


def test_only_the_recommended_k_is_decoded_speculatively(monkeypatch: pytest.MonkeyPatch) -> None:
    target, draft = tiny.pair(0.1)
    order: list[tuple[str, int]] = []
    for module in (doctor, trial):
        monkeypatch.setattr(module, "timed_run", lambda *a, **o: order.append(("run", o["k"])) or timed_run(*a, **o))
    monkeypatch.setattr(doctor, "forecast", lambda *a, **o: order.append(("forecast", 0)) or forecast(*a, **o))
    settings = DoctorSettings(k_max=3, max_new_tokens=16, repeats=1)
    found = doctor.diagnose(target, sd.ModelDrafter(draft), [tiny.PROMPT], settings)
    first = order.index(("forecast", 0))
    assert {k for what, k in order[:first] if what == "run"} == {0}
    assert ("run", found.measured.k) in order[first:]
    assert found.measured.k == found.forecast.best.k


def test_a_head_is_examined() -> None:
    """All of it: agreement, costs, the run by the clock, whose tokens a round are as predicted."""
    target = sd.TransformersModel(tiny.llama(layers=3), engine="lean")
    drafter = sd.EagleDrafter(head_for(target, list(range(tiny.VOCAB))))
    found = doctor.diagnose(target, drafter, [tiny.PROMPT], DoctorSettings(k_max=3, max_new_tokens=24, repeats=1))
    said = found.forecast.outlooks[found.measured.k]
    assert said.tokens_per_round.value == pytest.approx(found.measured.tokens_per_round, rel=0.02)
    assert found.overlap is not None
    with pytest.raises(ValueError, match="a prompt needs two tokens"):
        agreement(target, drafter, [5, 1, 7], 1, sd.Sampling(), 2)
