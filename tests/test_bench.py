"""Fair timing, the prompts it uses, and what `specdec bench` writes. No time is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch

import specdec_lite as sd
from specdec_lite.cli import main
from specdec_lite.contestants import bare, own, theirs
from specdec_lite.hardware.measure import Spread, Timings, forward_seconds, interleave
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

    def contestant(name: str):
        def run(case: int, turn: int) -> int:
            calls.append((name, case, turn))
            return 10 + case

        return run

    timings = interleave({name: contestant(name) for name in "abc"}, cases=2, rounds=3, warm_up=1)
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
    contestant = theirs(pair, [3], 20, sd.Sampling(temperature=0))[1]
    assert contestant.name == "transformers assisted K=3"
    widths = []
    hook = pair.target.module.register_forward_pre_hook(
        lambda _, __, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    contestant.run(tiny.PROMPT, 0)
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
