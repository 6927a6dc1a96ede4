"""`specdec bench --batch`: its prediction on planted times, where a gain ends, what is written. No time is asserted."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
from fake_clock import Clock

import specdec_lite as sd
from specdec_lite.bench import batches
from specdec_lite.bench.batches import Batch, BatchSettings, contest, ends, ends_at, predict, speed_up, where, written
from specdec_lite.bench.timing import Timings
from specdec_lite.cli import main
from specdec_lite.theory.cost_model import Costs
from specdec_lite.theory.replay import running, steps_until_all_end


def planted(**more: float) -> Costs:
    rest = dict(sample=0.0, synchronise=0.0)
    drafted = {0: dict(draft=0.0, verify=1.0, **rest), 4: dict(draft=0.4, verify=1.2, **rest)}
    return Costs(dict(verify=1.0, sample=0.0, synchronise=0.0, rest=0.0), drafted, **more)


@pytest.fixture(scope="module")
def pair() -> sd.Pair:
    target = tiny.llama().float()
    return sd.load_pair(target, tiny.noisy(target, 0.1), tokenizer=tiny.tokenizer())


def planted_batch(rows: int, naive: float, fast: float, predicted: float) -> Batch:
    """Seconds for a hundred tokens."""
    seconds = {"naive": [[naive]], "speculative K=1": [[2 * fast]], "speculative K=2": [[fast]]}
    return Batch(rows, Timings(seconds, {name: [[100]] for name in seconds}), {1: predicted / 2, 2: predicted})


def test_a_batch_is_priced_by_its_slowest_row() -> None:
    good, bad = running([1.0] * 20, 4), running([0.0] * 20, 4)
    costs = planted()
    assert speed_up([good], 4, costs) == pytest.approx(20 / (4 * 1.6))
    assert speed_up([bad], 4, costs) == pytest.approx(20 / (20 * 1.6))
    assert speed_up([good, bad], 4, costs) == speed_up([bad], 4, costs)
    mixed = running([0.5] * 20, 4)
    assert speed_up([mixed, mixed], 4, costs) == pytest.approx(20 / (1.6 * steps_until_all_end([mixed, mixed], 4)))
    paid = planted(opening=2.0, draft_opening=1.0)
    assert speed_up([good], 4, paid) == pytest.approx((20 + 2) / (4 * 1.6 + 3))


def test_where_a_gain_ends() -> None:
    assert ends_at({1: 2.0, 2: 1.5, 4: 1.1}) is None
    assert ends_at({2: 0.9, 4: 0.8}) == 2
    assert ends_at({1: 2.0, 4: 0.5}) == pytest.approx(2.0)  # midway in both logarithms
    assert ends_at({1: 2.0, 2: 1.0, 4: 0.5}) == pytest.approx(2.0)
    assert ends_at({1: 1.2, 2: 0.9, 4: 1.2, 8: 0.6}) > 4  # a stumble is not the end
    sizes = [1, 2, 4]
    assert where(None, sizes) == "speculation still pays at a batch of 4"
    assert where(1.0, sizes) == "speculation does not pay even at a batch of 1"
    assert where(2.8, sizes) == "speculation stops paying at a batch of about 3"


def test_each_batch_goes_with_its_best_k() -> None:
    results = [planted_batch(1, 10.0, 5.0, 2.0), planted_batch(4, 10.0, 20.0, 0.5)]
    assert [each.best for each in results] == [2, 2]
    assert [each.gain.median for each in results] == [2.0, 0.5]
    assert ends(results) == pytest.approx((2.0, 2.0))


def test_predicting_and_measuring_work_on_the_same_rows(pair: sd.Pair) -> None:
    settings = BatchSettings(batches=(1, 3), ks=(1, 2), max_new_tokens=8, repeats=2)
    prompts = [tiny.PROMPT, [3, 1, 4, 1, 5], [9, 2, 6, 5, 3]]
    texts, chances = written(pair, prompts, settings)
    greedy = dict(max_new_tokens=8, sampling=sd.Sampling(temperature=0), stop=sd.Stop())
    for prompt, text, row in zip(prompts, texts, chances, strict=True):
        assert text == [*prompt, *sd.autoregressive(pair.target, prompt, **greedy).tokens]
        assert len(row) == 8
    predicted = predict(pair, texts, chances, len(prompts[0]), settings)
    assert list(predicted) == [1, 2]
    assert all(each > 0 for each in predicted.values())
    timings = contest(pair, prompts, settings)
    assert timings.tokens == {name: [[24], [24]] for name in ("naive", "speculative K=1", "speculative K=2")}


def test_a_batch_is_timed_warm_and_in_turn(pair: sd.Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, batches)

    def planted_run(target: object, drafter: object, prompts: list, *, k: int, **how: object) -> SimpleNamespace:
        clock.work(k, 2.0 if k == 0 else 1.0)
        return SimpleNamespace(new_tokens=8)

    monkeypatch.setattr(batches, "timed_run", planted_run)
    timings = contest(pair, [[1], [2]], BatchSettings(ks=(1, 2), repeats=1))
    assert timings.seconds == {"naive": [[2.0]], "speculative K=1": [[1.0]], "speculative K=2": [[1.0]]}
    contest(pair, [[1], [2]], BatchSettings(ks=(1, 2), repeats=3))
    assert all(set(turn) == {0, 1, 2} for turn in clock.turns(3))


def test_a_batch_is_predicted_from_the_middle_of_warm_turns(pair: sd.Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    for name in ("timed_run", "time_phases", "time_opening"):
        monkeypatch.setattr(batches, name, lambda *given, name=name, **how: clock.work(name))
    monkeypatch.setattr(batches, "as_costs", lambda alone, timed, opening: alone + sum(timed) + opening)
    monkeypatch.setattr(batches, "speed_up", lambda chances, k, costs: k * costs)
    for repeats, clock.slow in ((1, {0}), (3, {0, 2})):
        clock.counts.clear()
        assert predict(pair, [[1] * 9], [], 1, BatchSettings(ks=(1, 2), repeats=repeats)) == {1: 3.0, 2: 6.0}


def test_the_command_prints_and_writes(pair: sd.Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair.target.module.save_pretrained(tmp_path / "target")
    pair.draft.module.save_pretrained(tmp_path / "draft")
    pair.tokenizer.save_pretrained(tmp_path / "target")
    models = ["--target", str(tmp_path / "target"), "--draft", str(tmp_path / "draft")]
    file = tmp_path / "batch.json"
    sizes = ["--batch", "2", "1", "--k", "2", "--max-new-tokens", "6", "--repeats", "1", "--json", str(file)]
    capsys.readouterr()  # transformers draws a bar when it saves
    assert main(["bench", *models, *sizes]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "Where it ends. By the clock speculation" in " ".join(out.split())
    data = json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert [each["batch"] for each in data["batches"]] == [1, 2]
    for each in data["batches"]:
        (fast,) = each["speculative"]
        assert fast["k"] == each["best_k"] == 2
        assert fast["predicted"] > 0
        assert each["tokens"] == {name: [6 * each["batch"]] for name in ("naive", "speculative K=2")}
    assert set(data["stops_paying_at"]) == {"measured", "predicted"}


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--batch", "0"], "must be a whole number of at least 1, got '0'"),
        (["--batch", "2", "--only", "transformers"], "--batch times this library alone"),
        (["--batch", "2", "--temperatures", "0", "1"], "give one temperature"),
    ],
)
def test_what_it_refuses(extra: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["bench", *extra])
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
