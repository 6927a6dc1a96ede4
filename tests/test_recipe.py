"""The large recipe at toy size: several roots, bfloat16, time and memory that run out, a compiler that fails."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

import specdec_lite as sd
from specdec_lite.models import TransformersModel
from specdec_lite.pocket import corpus
from specdec_lite.training import evaluate, trainer
from specdec_lite.training.distil import Lessons, own_samples
from specdec_lite.training.muon import Muon, orthogonalise
from specdec_lite.training.recipes import LARGE, SIZES, SMALL, Recipe, Shape
from specdec_lite.training.train import Deadline, main, make_pair, next_token_loss
from specdec_lite.training.trainer import Plan, learn, rehearse, train, windows

TEXT = torch.arange(6000) * 7 % 50
PLAN = Plan(tokens=2_560, context=32, final_context=32, tokens_per_step=256, compile=False)


def toy(compile: bool = False) -> Recipe:
    """LARGE with everything shrunk but its choices of precision."""
    plan = dict(context=64, final_context=64, tokens_per_step=512, compile=compile)
    return replace(
        LARGE,
        vocab_size=400,
        target=Shape(layers=4, width=64, heads=2),
        draft=Shape(layers=1, width=64, heads=2),
        target_plan=replace(LARGE.target_plan, tokens=20_000, **plan),
        draft_plan=replace(LARGE.draft_plan, tokens=20_000, **plan),
        sample_tokens=2_000,
        sample_rows=8,
        lesson_tokens=20_000,
        tokenizer_bytes=200_000,
    )


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two folders of Python, twenty files each."""
    files = [p for p in sorted(corpus.standard_library().glob("*.py")) if p.stat().st_size > 2000][:40]
    made = []
    for name, chosen in (("first", files[::2]), ("second", files[1::2])):
        folder = tmp_path_factory.mktemp(name)
        for path in chosen:
            (folder / path.name).write_bytes(path.read_bytes())
        made.append(folder)
    return made


@pytest.fixture(scope="module")
def work(roots: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the toy recipe has run to its end."""
    folder = tmp_path_factory.mktemp("work")
    make_pair(toy(), folder, folder / "pair", roots=roots)
    return folder


@pytest.fixture
def model() -> LlamaForCausalLM:
    return SMALL.target.build(50, seed=0)


@pytest.fixture
def items() -> partial:
    return partial(windows, TEXT)


def test_the_large_pair_is_large_and_of_one_shape_while_it_trains() -> None:
    with torch.device("meta"):
        target, draft = (
            sum(p.numel() for p in each.build(4096, 0).parameters()) for each in (LARGE.target, LARGE.draft)
        )
    assert 400e6 < target < 450e6 and draft < target / 12
    shapes = {(p.context, p.final_context, p.tokens_per_step) for p in (LARGE.target_plan, LARGE.draft_plan)}
    assert len(shapes) == 1
    assert SIZES["pocket"] == Recipe() and SIZES["large"] is LARGE


def test_the_toy_runs_to_the_end_in_bfloat16(work: Path) -> None:
    for role in ("target", "draft"):
        assert {w.dtype for w in load_file(work / "pair" / role / "model.safetensors").values()} == {torch.bfloat16}
        assert json.loads((work / "pair" / role / "config.json").read_text())["dtype"] == "bfloat16"
    pair = sd.load_pair(work / "pair/target", work / "pair/draft", dtype="bfloat16")
    made = sd.speculative(pair.target, sd.ModelDrafter(pair.draft), "def ", k=3, max_new_tokens=12, stop=sd.Stop())
    assert len(made.tokens) == 12
    assert made.trace.mean_overlap > 0.3
    steps = json.loads((work / "steps.json").read_text())
    assert list(steps) == ["text", "target", "samples", "lessons", "draft", "all"]
    assert steps["target"]["loss"] < math.log(400) - 0.15  # it has learned something
    assert not (work / "target.pt").exists()  # an infinite interval: no checkpoint


def test_the_toy_called_again_makes_nothing_anew(work: Path, roots: list[Path]) -> None:
    kept = [work / "tokenizer/tokenizer.json", work / "samples.pt", work / "pair/target/model.safetensors"]
    before = [path.stat().st_mtime_ns for path in kept]
    make_pair(toy(), work, work / "pair", roots=roots)
    assert [path.stat().st_mtime_ns for path in kept] == before


def test_a_short_time_still_gives_a_pair(roots: list[Path], tmp_path: Path) -> None:
    endless = replace(toy(), sample_tokens=10**9, lesson_tokens=10**9)
    endless = replace(endless, target_plan=replace(endless.target_plan, tokens=10**12))
    endless = replace(endless, draft_plan=replace(endless.draft_plan, tokens=10**12))
    make_pair(endless, tmp_path, tmp_path / "pair", roots=roots, minutes=0.01)
    steps = json.loads((tmp_path / "steps.json").read_text())
    assert (tmp_path / "pair/draft/model.safetensors").exists()
    assert steps["all"]["minutes"] < 2  # a moment each, and one batch of samples more


def test_the_command_takes_a_size_minutes_and_several_roots(roots: list[Path], tmp_path: Path) -> None:
    asked = ["--size", "small", "--work", str(tmp_path), "--device", "cpu", "--minutes", "0.01", "--bfloat16"]
    main([*asked, "--root", str(roots[0]), "--root", str(roots[1])])
    files = json.loads((tmp_path / "steps.json").read_text())["text"]["files"]
    assert files == len(corpus.read_corpus(roots).train) > len(corpus.read_corpus(roots[0]).train)
    with pytest.raises(SystemExit):
        main(["--size", "huge", "--work", str(tmp_path)])


def test_evaluate_reads_any_pair_and_writes_a_file(work: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    asked = ["--pair", str(work / "pair"), "--dtype", "bfloat16", "--device", "cpu", "--files", "2", "--prompts", "2"]
    evaluate.main([*asked, "--json", str(file)])
    found = json.loads(file.read_text())
    assert found["dtype"] == "bfloat16"
    assert found["target_parameters"] == sum(p.numel() for p in toy().target.build(400, 0).parameters())
    assert 0 < found["mean_overlap_at_temperature_1"] < 1 < found["target_bits_per_byte"] < 8


def held_out_name(wanted: bool) -> str:
    return next(f"m{i}.py" for i in range(1000) if corpus.is_held_out(f"m{i}.py") == wanted)


def test_a_held_out_text_is_not_trained_on_under_another_name(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    (first / held_out_name(True)).write_text("kept = 'apart'\n")
    (first / held_out_name(False)).write_text("seen = 1\n")
    (second / held_out_name(False)).write_text("kept = 'apart'\n")
    (second / f"package_{held_out_name(False)}").write_text("also = 'seen'\n")
    assert not corpus.is_held_out(f"package_{held_out_name(False)}")
    read = corpus.read_corpus([first, second])
    assert read.train == ["seen = 1\n", "also = 'seen'\n"]
    assert read.held_out == ["kept = 'apart'\n"]


def test_every_held_out_file_of_several_roots_stays_held_out(roots: list[Path]) -> None:
    read = corpus.read_corpus(roots)
    apart = [(r / n).read_text() for r in roots for n in sorted(p.name for p in r.iterdir()) if corpus.is_held_out(n)]
    assert read.held_out == apart
    assert not set(read.train) & set(apart)
    assert len(read.train) + len(apart) == 40


def test_most_bytes_reads_the_first_root_whole_and_then_by_hash(roots: list[Path]) -> None:
    whole = [sum(len(text.encode()) for text in corpus.read_corpus(root).train) for root in roots]
    most = whole[0] + whole[1] // 2
    read = corpus.read_corpus(roots, most_bytes=most)
    size = sum(len(text.encode()) for text in read.train)
    assert most <= size < sum(whole)
    assert set(corpus.read_corpus(roots[0]).train) <= set(read.train)
    there = {path.read_text(): path.name for path in roots[1].iterdir()}
    taken = [there[text] for text in read.train if text in there]
    assert taken != sorted(taken)  # not the first ones of the alphabet
    assert corpus.read_corpus(roots, most_bytes=10 * sum(whole)).held_out_names != []


def test_some_of_is_spread_over_all_texts() -> None:
    texts = [f"{i:04}" for i in range(100)]
    assert corpus.some_of(texts, 100) == texts[::4]
    assert corpus.some_of(texts, None) == corpus.some_of(texts, 10**6) == texts


def test_token_stream_is_what_encode_gives_and_ends_in_time(roots: list[Path]) -> None:
    texts = corpus.read_corpus(roots).train
    tokenizer = corpus.train_tokenizer(texts, 300)
    short = [text[:200] for text in texts] * 20
    flat = [token for row in corpus.encode(tokenizer, short) for token in row]
    assert corpus.token_stream(tokenizer, short).tolist() == flat
    assert corpus.token_stream(tokenizer, short, minutes=0).tolist() == [
        token for row in corpus.encode(tokenizer, short[:256]) for token in row
    ]


@pytest.mark.parametrize("shape", [(2, 24, 60), (2, 60, 24), (1, 128, 128)])
def test_orthogonalise_in_bfloat16(shape: tuple[int, ...]) -> None:
    def evened(steps: int) -> bool:
        raw = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        made = orthogonalise(raw, steps, torch.bfloat16)
        assert made.dtype == torch.bfloat16
        values = torch.linalg.svdvals(made.float())
        return bool(values[..., : -max(1, shape[1] // 16)].min() > 0.4 and values.max() < 1.4)

    assert evened(5)
    assert not evened(1)


def test_muon_keeps_to_float32_on_a_cpu() -> None:
    grad = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    moved = torch.nn.Parameter(torch.zeros(12, 8))
    moved.grad = grad.clone()
    Muon([moved], lr=1.0, momentum=0.0).step()
    expected = {dtype: -((12 / 8) ** 0.5) * orthogonalise(grad[None], dtype=dtype)[0].float() for dtype in DTYPES}
    torch.testing.assert_close(moved.data, expected[torch.float32])
    assert not torch.allclose(moved.data, expected[torch.bfloat16], atol=1e-4)


DTYPES = (torch.float32, torch.bfloat16)


class Clock:
    """A clock that moves by six seconds whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 6.0
        return self.now


def test_training_ends_in_time_with_its_rate_at_zero(
    model: LlamaForCausalLM, items: partial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = []
    monkeypatch.setattr(trainer, "time", Clock())
    monkeypatch.setattr(Plan, "rate", lambda plan, *at, known=Plan.rate: rates.append(known(plan, *at)) or rates[-1])
    state = train(model, items, next_token_loss, PLAN.within(2.0), tmp_path / "m.pt", "short")
    assert state["step"] == 10  # all tokens: 60 seconds
    endless = replace(PLAN, tokens=10**9, checkpoint_minutes=math.inf)
    rates.clear()
    state = train(model, items, next_token_loss, endless.within(20.0), tmp_path / "n.pt", "long")
    assert state["step"] == 200 and state["minutes"] == pytest.approx(20)
    assert rates[2 * 60] == 1 and rates[-1] < 0.02  # two optimizers a step
    assert not (tmp_path / "n.pt").exists()


def test_a_run_shares_its_minutes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    deadline = Deadline(total=10, began=0)
    monkeypatch.setattr("specdec_lite.training.train.time.monotonic", lambda: 120.0)  # two minutes are gone
    assert deadline.left("target") == pytest.approx(0.6 * 10 - 2)
    assert deadline.left("text") == 0.05  # late, but never nothing
    assert Deadline(began=0).left("draft") == math.inf


def test_samples_and_lessons_end_in_time_and_memory(model: LlamaForCausalLM) -> None:
    target = TransformersModel(model.eval())
    common = dict(tokens=5_000, batch=4, prompt=8, new=16)
    assert len(own_samples(target, TEXT, minutes=0, **common)) == 4 * (8 + 16)
    assert len(own_samples(target, TEXT, **common)) >= 5_000

    assert len(Lessons.record(model, TEXT, 32, 64, minutes=0).tokens) == 8  # one batch
    assert len(Lessons.record(model, TEXT, 32, 64).tokens) == 64
    few = Lessons.record(model, TEXT, 32, 64, most_bytes=10.5 * 32 * 32 * 2)
    assert few.hidden.shape == (10, 32, 32)
    assert torch.equal(few.tokens.flatten(), TEXT[:320])


def test_lessons_keep_the_range_of_the_model(model: LlamaForCausalLM) -> None:
    torch.nn.init.constant_(model.model.norm.weight, 1e6)
    wide = model.bfloat16().eval()
    lessons = Lessons.record(wide, TEXT, 32, 4)
    assert lessons.hidden.dtype == torch.bfloat16 and lessons.hidden.isfinite().all()
    assert not lessons.hidden.half().isfinite().all()
    assert Lessons.record(SMALL.target.build(50, 0).eval(), TEXT, 32, 4).hidden.dtype == torch.float16


@pytest.fixture
def _compiler_restored() -> Iterator[None]:
    yield
    torch.compiler.set_stance("default")
    torch.compiler.reset()


def broken_backend(graph: torch.fx.GraphModule, inputs: list) -> None:
    raise RuntimeError("no Triton here\nand a long story")


@pytest.mark.usefixtures("_compiler_restored")
@pytest.mark.parametrize("late", [True, False])
def test_a_compiler_that_fails_is_done_without(
    late: bool,
    model: LlamaForCausalLM,
    items: partial,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def compile_layers(model: torch.nn.Module) -> None:
        if not late:
            raise RuntimeError("no Triton here")
        for layer in model.model.layers:
            layer.compile(backend=broken_backend)

    plain = SMALL.target.build(50, seed=0)
    train(plain, items, next_token_loss, PLAN, tmp_path / "plain.pt", "plain")
    monkeypatch.setattr(trainer, "compile_layers", compile_layers)
    state = train(model, items, next_token_loss, replace(PLAN, compile=True), tmp_path / "m.pt", "fallen back")
    assert state["step"] == 10
    said = [line for line in capsys.readouterr().out.splitlines() if line]
    assert len(said) == 1 and said[0].startswith("not compiled") and "no Triton here" in said[0]
    for name, weight in plain.state_dict().items():  # the rehearsal left no trace
        assert torch.equal(weight, model.state_dict()[name])


@pytest.mark.usefixtures("_compiler_restored")
def test_an_error_of_the_loss_is_not_taken_for_the_compilers(
    model: LlamaForCausalLM, items: partial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
        raise ValueError("a mistake")

    monkeypatch.setattr(trainer, "compile_layers", lambda model: None)
    with pytest.raises(ValueError, match="a mistake"):
        train(model, items, loss, replace(PLAN, compile=True), tmp_path / "m.pt", "wrong")


def test_a_batch_too_large_is_taken_in_parts(model: LlamaForCausalLM, items: partial) -> None:
    batch = torch.stack([next(each) for each in [items(32, 0)] for _ in range(8)])

    def loss(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
        if len(tokens) > 3:
            raise torch.OutOfMemoryError("too many rows")
        return next_token_loss(model, tokens)

    assert rehearse(model, loss, batch, PLAN) == 2
    assert all(weight.grad is None for weight in model.parameters())
    parts = learn(model, loss, batch, PLAN, 3)
    split = [weight.grad.clone() for weight in model.parameters()]
    model.zero_grad()
    whole = learn(model, next_token_loss, batch, PLAN, 8)
    torch.testing.assert_close(parts, whole)
    for got, weight in zip(split, model.parameters(), strict=True):
        torch.testing.assert_close(got, weight.grad, atol=1e-6, rtol=1e-4)
    with pytest.raises(torch.OutOfMemoryError):
        rehearse(model, lambda *_: loss(model, batch), batch, PLAN)


def test_a_loss_that_is_no_number_ends_the_run_and_spoils_no_checkpoint(
    model: LlamaForCausalLM, items: partial, tmp_path: Path
) -> None:
    seen = []

    def loss(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
        seen.append(len(tokens))
        return next_token_loss(model, tokens) * (math.nan if len(seen) == 5 else 1)

    with pytest.raises(FloatingPointError, match="lower the plan's"):
        train(model, items, loss, replace(PLAN, checkpoint_minutes=0), tmp_path / "m.pt", "diverging")
    saved = torch.load(tmp_path / "m.pt", weights_only=True)
    assert saved["state"]["step"] == 4
    assert all(weight.isfinite().all() for weight in saved["model"].values())


@pytest.mark.gpu
def test_the_toy_runs_on_a_gpu(roots: list[Path], tmp_path: Path) -> None:
    """Compiled where Triton is there; a loss every 20 steps; lessons stay in the GPU's memory."""
    make_pair(toy(compile=True), tmp_path, tmp_path / "pair", "cuda", roots)
    assert not (tmp_path / "lessons.pt").exists()
    pair = sd.load_pair(tmp_path / "pair/target", tmp_path / "pair/draft", device="cuda", dtype="bfloat16")
    made = sd.speculative(pair.target, sd.ModelDrafter(pair.draft), "def ", k=3, max_new_tokens=12, stop=sd.Stop())
    assert made.trace.mean_overlap > 0.3
    asked = ["--pair", str(tmp_path / "pair"), "--device", "cuda", "--dtype", "bfloat16", "--files", "1"]
    evaluate.main([*asked, "--prompts", "2", "--json", str(tmp_path / "figures.json")])
    assert json.loads((tmp_path / "figures.json").read_text())["target_bits_per_byte"] < 8
