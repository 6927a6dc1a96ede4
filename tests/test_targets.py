"""What is wanted and what is met: verdicts on planted figures, parts that fail, and the file. No time is asserted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from fake_clock import Clock

import specdec_lite as sd
from specdec_lite import arguments
from specdec_lite.bench import bandwidth as speed
from specdec_lite.bench import models_under_test as subjects
from specdec_lite.bench import overhead as outside
from specdec_lite.bench import target_runs as measures
from specdec_lite.bench import targets, workbench
from specdec_lite.bench.bottleneck import WANTED
from specdec_lite.bench.goals import ANY, GOALS, goals_for
from specdec_lite.bench.synthetic import noisy_draft
from specdec_lite.bench.target_runs import PARTS, Found
from specdec_lite.bench.timing import Spread
from specdec_lite.bench.workbench import QUICK, WHOLE, TargetsSettings, Workbench
from specdec_lite.cli import main
from specdec_lite.decoding import Decoded
from specdec_lite.loading.llamas import OWN, Llama
from specdec_lite.randomness import SeededStreams

TOYS = {  # in the places of the shapes that are timed
    "Llama wide": Llama("Llama wide", 2, 16, 24, 4, 2, 8, 2048, False, ""),
    "Llama narrow": Llama("Llama narrow", 1, 8, 16, 2, 1, 4, 2048, False, ""),
}
TINY = replace(QUICK, rows=(1, 5), context=8, passes=2, ks=(2,), prompts=1, new=10, repeats=1, k_max=2)


def behind(out: str, title: str) -> str:
    """What the table says behind a title."""
    (found,) = [each for each in out.splitlines() if each.strip().startswith(title)]
    return " ".join(found.strip().removeprefix(title).split())


# Goals


def test_every_goal_has_its_sentence_its_part_and_a_figure_of_its_own() -> None:
    for device in ANY:
        keys = [(each.part, each.name) for each in goals_for(device)]
        assert len(set(keys)) == len(keys)
    assert {each.part for each in GOALS} == set(PARTS) == set(arguments.PARTS)
    assert tuple(PARTS) == arguments.PARTS
    assert all(len(each.sentence) > 20 for each in GOALS)
    assert WANTED == {"five_rows": 1.25, "share_of_bandwidth": 0.80}


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [("at most", (1.25, 0.3), (1.26, float("nan"))), ("at least", (1.25, 9.0), (1.24, float("nan"))),
     ("within", (1.25, -1.25, 0.0), (1.26, -1.26, float("nan")))],
)  # fmt: skip
def test_a_bound_belongs_to_what_is_met(kind: str, good: tuple[float, ...], bad: tuple[float, ...]) -> None:
    goal = replace(GOALS[0], kind=kind, bound=1.25)
    assert all(map(goal.met, good))
    assert not any(map(goal.met, bad))
    assert goal.wanted == f"{kind} 1.25"
    assert replace(goal, bound=0.15).formatted(-0.034) == "-3.4%"


# The table and the file, on planted figures


def plant(monkeypatch: pytest.MonkeyPatch, **parts: Callable[[Workbench], Found]) -> None:
    """Put other code where the parts are, with nothing measured in the rest."""
    for name in PARTS:
        run = parts.get(name.replace("-", "_"), lambda bench: Found())
        monkeypatch.setitem(PARTS, name, replace(PARTS[name], run=run))


def found(**figures: float) -> Callable[[Workbench], Found]:
    return lambda bench: Found({name: Spread(value, value - 0.01, value + 0.01) for name, value in figures.items()})


def fails(error: BaseException) -> Callable[[Workbench], Found]:
    def run(bench: Workbench) -> Found:
        raise error

    return run


def test_met_missed_and_failed_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(
        monkeypatch,
        roofline=found(five_rows=1.20, share_of_bandwidth=0.5),
        bench=fails(torch.OutOfMemoryError("no room\nand a long story")),
        doctor=found(error=-0.16, gap=0.01),
        wide=fails(ValueError("there is no folder models")),
        lookup=found(error=0.1, gap=-0.06),
    )
    file = tmp_path / "all.json"
    threads = torch.get_num_threads()
    assert main(["targets", "--quick", "--json", str(file)]) == 0
    assert torch.get_num_threads() == threads
    out, err = capsys.readouterr()
    assert err == ""
    told = {
        "5 rows in passes over 1, a wide model": "at most 1.25 1.20 1.19 – 1.21 met specdec roofline",
        "a pass over 1 row, of reading": "at least 80% 50.0% 49.0% – 51.0% not met specdec roofline",
        "speculative / assisted, greedy": "at least 1.50 not measured: OutOfMemoryError: no room",
        "prediction's error, the pair": "within 15% -16.0% -17.0% – -15.0% not met specdec doctor",
        "prediction's error, synthetic acceptance": "within 15% not measured: there is no folder models",
        "left by the parts, prompt lookup": "within 5% -6.0% -7.0% – -5.0% not met specdec doctor --drafter lookup",
        "of a round, outside the forwards": "at most 10% not measured: the part gave no such figure",
    }
    assert {title: behind(out, title) for title in told} == told
    assert "3 met, 3 not met, 7 not measured" in out
    data = json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert data["what"] == "specdec targets"
    assert data["complete"] is True
    assert data["command"] == "specdec targets --quick --json all.json"  # no path of this machine
    assert data["settings"]["quick"] is True
    assert data["hardware"]["gpu"] is None
    assert set(data["versions"]) == {"python", "torch", "transformers", "specdec_lite"}
    goals = {(each["part"], each["name"]): each for each in data["goals"]}
    assert goals["roofline", "five_rows"]["met"] is True
    assert goals["roofline", "five_rows"]["is"] == {"median": 1.2, "low": pytest.approx(1.19), "high": 1.21}
    assert goals["roofline", "share_of_bandwidth"]["met"] is False
    assert goals["bench", "over_assisted_greedy"] == goals["bench", "over_assisted_greedy"] | {
        "is": None, "met": None, "why": "OutOfMemoryError: no room", "bound": 1.5, "kind": "at least",
    }  # fmt: skip
    assert goals["outside", "outside"]["why"] == "the part gave no such figure"


def test_the_file_is_there_after_every_part_and_an_interrupt_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, seen = tmp_path / "all.json", []

    def look(bench: Workbench) -> Found:
        seen.append(json.loads(file.read_text()))
        raise KeyboardInterrupt

    plant(monkeypatch, roofline=found(five_rows=1.0, share_of_bandwidth=float("nan")), bench=look)
    assert main(["targets", "--json", str(file)]) == 130
    assert seen == [json.loads(file.read_text())]
    assert seen[0]["complete"] is False
    assert list(seen[0]["parts"]) == list(PARTS)
    assert seen[0]["parts"]["doctor"] is None
    goals = {(each["part"], each["name"]): each for each in seen[0]["goals"]}
    assert goals["roofline", "share_of_bandwidth"]["is"]["median"] is None  # JSON has no NaN
    assert goals["roofline", "share_of_bandwidth"]["met"] is False
    assert goals["doctor", "error"]["why"] == "its part was not reached"
    assert "met" in capsys.readouterr().out  # what was measured was printed
    assert list(tmp_path.iterdir()) == [file]


def test_a_device_without_goals_for_a_part_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(monkeypatch)
    monkeypatch.setattr(targets, "goals_for", lambda device: [])
    assert main(["targets", "--only", "roofline"]) == 0
    assert "0 met, 0 not met, 0 not measured" in capsys.readouterr().out


def test_only_some_parts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    plant(monkeypatch, lookup=found(error=0.0, gap=0.0), bench=lambda bench: pytest.fail("was not asked for"))
    assert main(["targets", "--only", "lookup"]) == 0
    assert "2 met, 0 not met, 0 not measured" in capsys.readouterr().out


def test_the_command_that_gives_a_part_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbench, "wide_shape", lambda device, dtype: OWN["Llama wide"])
    plain = Workbench(TargetsSettings())
    assert [measures.command(plain, name) for name in ("roofline", "doctor", "outside")] == [
        "specdec roofline", "specdec doctor", "specdec targets --only outside"
    ]  # fmt: skip
    assert measures.command(plain, "wide") == (
        "specdec doctor --agreement 0.8 --target 'random:Llama wide' --draft 'random:Llama narrow'"
    )
    given = Workbench(TargetsSettings(str(tmp_path), "some/draft", dtype="bfloat16", threads=2, engine="eager"))
    assert measures.command(given, "lookup") == (
        f"specdec doctor --drafter lookup --target {tmp_path.name} --draft some/draft --engine eager "
        "--dtype bfloat16 --threads 2"
    )
    for name in PARTS:  # each is a command that there is
        words = measures.command(plain, name).split()[1:2]
        assert words[0] in ("roofline", "bench", "doctor", "targets")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--device", "toaster"], "device must be cpu, cuda, cuda:N or mps, got 'toaster'"),
        (["--target", "somewhere"], "give both a target and a draft"),
        (["--only", "luck"], "invalid choice: 'luck'"),
        (["--json", "/no/such/folder/file.json"], "there is no folder /no/such/folder"),
        (["--threads", "0"], "must be a whole number of at least 1, got '0'"),
    ],
)
def test_bad_values_get_one_line_and_code_2(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["targets", *argv])
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err


# The real parts, small


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toys where large shapes are, and hardly any repetition."""
    for name, shape in TOYS.items():
        monkeypatch.setitem(OWN, name, shape)
    monkeypatch.setattr(speed, "working_set", lambda device: 1 << 20)
    monkeypatch.setattr(speed, "SIZES", (8, 16))
    monkeypatch.setattr(subjects, "last_level_cache", lambda device: None)
    monkeypatch.setattr(workbench, "QUICK", TINY)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    target = tiny.llama().float()
    target.save_pretrained(folder / "target")
    tiny.noisy(target, 0.1).save_pretrained(folder / "draft")
    tiny.tokenizer().save_pretrained(folder / "target")
    return ["--target", str(folder / "target"), "--draft", str(folder / "draft")]


def test_every_part_measures_its_figures(
    small: None, folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "all.json"
    assert main(["targets", *folders, "--quick", "--threads", "1", "--json", str(file)]) == 0
    out = capsys.readouterr().out
    assert ", 0 not measured" in out, out
    text = file.read_text()
    data = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert str(Path(folders[1]).parent) not in text
    parts = data["parts"]
    assert list(parts) == list(PARTS)
    assert all(each["why"] is None and each["seconds"] > 0 for each in parts.values())
    assert set(parts["roofline"]["raw"]["targets"]) == {"five_rows", "share_of_bandwidth"}
    assert [each["temperature"] for each in parts["bench"]["raw"]["contests"]] == [0, 1]
    assert parts["wide"]["raw"]["label"] == "synthetic acceptance"
    assert parts["wide"]["raw"]["synthetic_acceptance"] == 0.8
    assert parts["wide"]["figures"]["naive_share"]["median"] > 0
    assert parts["lookup"]["raw"]["drafter"] == "PromptLookupDrafter"
    assert set(parts["outside"]["figures"]) == {"outside", "tracing"}
    assert parts["outside"]["raw"] == {"k": 4, "new": 10, "repeats": 1}
    assert all(each["is"] is not None for each in data["goals"])


def test_a_missing_model_takes_down_only_what_needs_it(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = str(tmp_path / "gone")
    only = ["--only", "roofline", "outside", "lookup"]
    assert main(["targets", "--target", gone, "--draft", gone, "--quick", *only]) == 0
    out = capsys.readouterr().out
    said = "not measured: there is no folder gone"
    assert behind(out, "prediction's error, prompt lookup") == f"within 15% {said}"
    assert behind(out, "of a round, outside the forwards") == f"at most 10% {said}"
    assert "3 not measured" in out.splitlines()[-1]


def test_a_random_pair_is_not_taken_for_a_trained_one(small: None, capsys: pytest.CaptureFixture[str]) -> None:
    pair = ["--target", "random:Llama wide", "--draft", "random:Llama narrow"]
    assert main(["targets", *pair, "--quick", "--threads", "1", "--only", "doctor"]) == 0
    said = behind(capsys.readouterr().out, "prediction's error, the pair")
    assert said == "within 15% not measured: the pair has random weights, so what it accepts means nothing"


def test_sizes_leave_room_for_every_k() -> None:
    assert QUICK.new < WHOLE.new
    for each in (QUICK, WHOLE):
        assert max(each.ks) < each.new
        assert each.doctor.max_new_tokens == each.new


# What is measured only here


def test_the_share_outside_counts_both_models_forwards_and_no_prefill(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only forwards move, and one that moves in between as well."""
    now = 0.0

    class Slow:
        """A forward takes a second."""

        def __init__(self, model: sd.TransformersModel) -> None:
            self.model = model

        def __getattr__(self, name: str) -> object:
            return getattr(self.model, name)

        def forward(self, *arguments: object, **options: object) -> torch.Tensor:
            nonlocal now
            now += 1.0
            return self.model.forward(*arguments, **options)

    monkeypatch.setattr("specdec_lite.transfer.time.perf_counter", lambda: now)
    target, draft = map(Slow, tiny.pair(0.1))
    begin = SeededStreams.begin_round

    def cold_once(streams: SeededStreams) -> None:
        nonlocal now
        now += 1000.0 if now < 1000 else 0.0  # the turn that warms up is not counted
        begin(streams)

    monkeypatch.setattr(SeededStreams, "begin_round", cold_once)
    assert outside.outside(target, draft, [tiny.PROMPT], k=2, new=8, repeats=2) == Spread(0, 0, 0)
    sample = sd.acceptance.TokenRejection.accept_prob

    def slow_chance(*arguments: object) -> torch.Tensor:
        nonlocal now
        now += 3.0  # a round of two drafts is three forwards
        return sample(*arguments)

    monkeypatch.setattr(sd.acceptance.TokenRejection, "accept_prob", slow_chance)
    assert outside.outside(target, draft, [tiny.PROMPT], k=2, new=30, repeats=1).median == pytest.approx(0.5, abs=0.08)


def test_a_trace_s_cost_is_a_share() -> None:
    target, draft = tiny.pair(0.1)
    made = outside.tracing(target, draft, [tiny.PROMPT], k=2, new=8, repeats=2)
    assert made.low <= made.median <= made.high
    assert made.median > -1


def test_a_trace_s_cost_is_taken_warm_and_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def planted(target: object, drafter: object, prompt: list[int], *, trace: str, **how: object) -> Decoded:
        clock.work(trace, 5.0 if trace == "summary" else 4.0)
        return Decoded([0] * 8, None, sd.Trace(), 0.0)

    monkeypatch.setattr(outside, "speculative", planted)
    for repeats, clock.slow in ((1, {0}), (3, {0, 2})):
        clock.counts.clear()
        made = outside.tracing(*tiny.pair(), [tiny.PROMPT], k=2, new=8, repeats=repeats)
        assert made.median == pytest.approx(0.25)
    assert all(set(turn) == {"off", "summary"} for turn in clock.turns(2))


def test_a_spoiled_draft_is_another_and_leaves_the_first_alone() -> None:
    _, draft = tiny.pair(0.1)
    before = [weight.clone() for weight in draft.module.parameters()]
    bad = noisy_draft(draft)
    assert all(torch.equal(a, b) for a, b in zip(before, draft.module.parameters(), strict=True))
    assert bad.engine.name == draft.engine.name
    pairs = zip(before, bad.module.parameters(), strict=True)
    assert {a.ndim for a, b in pairs if not torch.equal(a, b)} == {2}
    again = noisy_draft(draft).module.parameters()
    assert all(torch.equal(a, b) for a, b in zip(again, bad.module.parameters(), strict=True))


@pytest.mark.gpu
def test_on_a_gpu_every_goal_of_the_pocket_pair_has_a_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With toys in the places of the large shapes: that the command runs there, not how fast."""
    monkeypatch.setattr(workbench, "QUICK", TINY)
    for module in (workbench, subjects):
        monkeypatch.setattr(module, "wide_shape", lambda device, dtype: OWN["Llama narrow"])
    file = tmp_path / "all.json"
    assert main(["targets", "--quick", "--device", "cuda", "--json", str(file)]) == 0
    data = json.loads(file.read_text())
    assert {name: each["why"] for name, each in data["parts"].items()} == dict.fromkeys(PARTS)
    assert data["hardware"]["gpu"] == torch.cuda.get_device_name()
    assert data["hardware"]["cuda"] == torch.version.cuda
    assert {each["name"] for each in data["goals"]} >= {"naive_share", "clock", "over_naive_greedy"}
    assert all(each["is"] is not None for each in data["goals"])
