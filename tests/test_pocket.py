"""The pocket pair's recipe, run small to its end, and the pair that ships."""

from __future__ import annotations

import ast
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

import specdec_lite as sd
from specdec_lite.acceptance import Rule
from specdec_lite.pocket import DRAFT, TARGET, corpus
from specdec_lite.pocket.prompts import held_out_prompts
from specdec_lite.teaching.museum import ResampleFromTarget
from specdec_lite.theory.exact import target_distribution
from specdec_lite.theory.statistics import compare
from specdec_lite.training.distil import mix
from specdec_lite.training.evaluate import bits_per_byte, mean_overlap, xz_bits_per_byte
from specdec_lite.training.muon import orthogonalise
from specdec_lite.training.recipes import SMALL
from specdec_lite.training.train import main, make_pair, next_token_loss
from specdec_lite.training.trainer import Plan, train, windows


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of Python: forty files of the standard library."""
    folder = tmp_path_factory.mktemp("source")
    texts = [p for p in sorted(corpus.standard_library().glob("*.py")) if p.stat().st_size > 2000][:40]
    for path in texts:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_small_mode_runs_to_the_end_and_the_pair_decodes(source: Path, tmp_path: Path) -> None:
    main(["--size", "small", "--work", str(tmp_path / "work"), "--root", str(source), "--device", "cpu"])
    pair = sd.load_pair(tmp_path / "work/pair/target", tmp_path / "work/pair/draft")
    made = sd.speculative(pair.target, sd.ModelDrafter(pair.draft), "def ", k=3, max_new_tokens=12, stop=sd.Stop())
    assert len(made.tokens) == 12
    assert made.trace.mean_overlap > 0.3  # distilled a little: two unrelated models share far less


def test_a_stopped_run_resumes_where_it_was(tmp_path: Path) -> None:
    items = partial(windows, torch.arange(4000) % 50)
    checkpoint = tmp_path / "model.pt"
    plan = Plan(tokens=8_000, context=32, final_context=32, tokens_per_step=256, compile=False, checkpoint_minutes=0)
    steps = 0

    def counted(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps == 20:
            raise KeyboardInterrupt
        return next_token_loss(model, tokens)

    with pytest.raises(KeyboardInterrupt):
        train(SMALL.target.build(50, seed=0), items, counted, plan, checkpoint, "stopped")
    assert torch.load(checkpoint, weights_only=True)["state"]["step"] == 19

    state = train(SMALL.target.build(50, seed=0), items, counted, plan, checkpoint, "resumed")
    assert state["step"] == 32  # 8,000 tokens in steps of 256
    assert steps == 20 + 32 - 19  # none was done twice
    train(SMALL.target.build(50, seed=0), items, counted, plan, checkpoint, "finished")
    assert steps == 20 + 32 - 19  # nothing was left to do


def test_a_recipe_called_again_keeps_what_it_made(source: Path, tmp_path: Path) -> None:
    recipe = replace(SMALL, target_plan=replace(SMALL.target_plan, tokens=1024), sample_tokens=400)
    recipe = replace(recipe, draft_plan=replace(recipe.draft_plan, tokens=1024))
    make_pair(recipe, tmp_path, tmp_path / "pair", roots=[source])
    sampled = (tmp_path / "samples.pt").stat().st_mtime_ns
    weights = (tmp_path / "pair/draft/model.safetensors").read_bytes()
    make_pair(recipe, tmp_path, tmp_path / "pair", roots=[source])
    assert (tmp_path / "samples.pt").stat().st_mtime_ns == sampled
    assert (tmp_path / "pair/draft/model.safetensors").read_bytes() == weights


def test_held_out_files_are_kept_apart(source: Path) -> None:
    read = corpus.read_corpus(source)
    assert read.train and read.held_out
    assert not set(read.train) & set(read.held_out)
    assert all(corpus.is_held_out(name) for name in read.held_out_names)
    assert len(read.train) + len(read.held_out) == 40


def test_tokenizer_gives_every_text_back(source: Path) -> None:
    tokenizer = corpus.train_tokenizer(corpus.read_corpus(source).train, 300)
    for text in ("def f(x):\n        return x\n\n\n", "ünïcode 漢字 \t\r\n\x00", "", "a  =  1_000 # …"):
        ids = corpus.encode(tokenizer, [text])[0]
        assert ids[-1] == tokenizer.eos_token_id == 0
        assert tokenizer.decode(ids[:-1]) == text


def test_too_little_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="too few for a corpus"):
        corpus.read_corpus(tmp_path)


def test_windows_cover_the_text_once_an_epoch() -> None:
    made = windows(torch.arange(1000), 10, seed=3)
    first = [next(made) for _ in range(99)]
    assert all(len(window) == 11 for window in first)
    starts = sorted(int(window[0]) for window in first)
    assert len(set(starts)) == 99 and all(b - a == 10 for a, b in zip(starts, starts[1:], strict=False))
    with pytest.raises(ValueError, match="too few"):
        next(windows(torch.arange(5), 10, seed=0))


def test_orthogonalise_evens_out_singular_values() -> None:
    for shape in ((2, 24, 60), (2, 60, 24)):
        raw = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        assert torch.linalg.svdvals(raw).max() > 3
        values = torch.linalg.svdvals(orthogonalise(raw))
        assert values.min() > 0.5 and values.max() < 1.3


def test_mix_holds_text_and_the_wanted_share_of_samples() -> None:
    mixed = mix(torch.zeros(70_000, dtype=torch.long), torch.ones(5_000, dtype=torch.long), share=0.3)
    assert (mixed == 0).sum() == 70_000
    assert 0.29 < (mixed == 1).float().mean() < 0.31


def test_xz_reference() -> None:
    assert xz_bits_per_byte(["a" * 100_000]) < 0.05
    noise = "".join(chr(33 + int(i)) for i in torch.randint(64, (50_000,), generator=torch.Generator().manual_seed(0)))
    assert 5.9 < xz_bits_per_byte([noise]) < 6.3  # 64 equally likely signs are six bits


SEEDS = (10_000, 20_000, 30_000)  # of the first row of each batch


@pytest.fixture(scope="module")
def pair() -> sd.Pair:
    return sd.load_pair()


def test_the_shipped_pair_is_small_and_the_draft_much_smaller(pair: sd.Pair) -> None:
    size = sum(path.stat().st_size for folder in (TARGET, DRAFT) for path in folder.rglob("*"))
    assert size < 45e6
    assert pair.draft.parameters < pair.target.parameters / 4
    assert pair.draft.layers <= 2


def test_the_shipped_pair_overlaps_as_its_card_says(pair: sd.Pair) -> None:
    """The card's figure comes from more and longer continuations; 0.65 is what was asked for."""
    assert 0.65 < mean_overlap(pair, held_out_prompts(pair.tokenizer, 8), new_tokens=48) < 0.9


@pytest.mark.parametrize(("rule", "right"), [(sd.TokenRejection(), True), (ResampleFromTarget(), False)])
def test_the_shipped_pairs_first_tokens_follow_the_target(pair: sd.Pair, rule: Rule, right: bool) -> None:
    """Real weights in float32, 3,000 seeded texts: a bias of 8 % would show with a chance of 99 %."""
    prompt = pair.tokenizer.encode("def read(self, ")
    common = dict(max_new_tokens=3, sampling=sd.Sampling(top_k=3), stop=sd.Stop())
    claimed = target_distribution(pair.target, prompt, **common)
    batch = dict(k=2, rule=rule, trace="off", **common)
    runs = [sd.speculative(pair.target, sd.ModelDrafter(pair.draft), [prompt] * 1000, seed=s, **batch) for s in SEEDS]
    found = compare((tuple(row) for run in runs for row in run.tokens), claimed)
    assert found.detectable_bias(alpha=1e-3, power=0.99) < 0.08
    assert (found.p_value > 1e-3) == right


def test_the_shipped_target_has_learned_python(pair: sd.Pair) -> None:
    snippet = ["class Point:\n    def __init__(self, x, y):\n        self.x = x\n        self.y = y\n"]
    assert bits_per_byte(pair.target, snippet) < bits_per_byte(pair.draft, snippet) < 4
    greedy = sd.Sampling(temperature=0)
    made = sd.autoregressive(pair.target, "\nimport os\n\ndef test_open(self", max_new_tokens=8, sampling=greedy)
    ast.parse("def test_open(self" + made.text.split("\n")[0] + "\n    pass\n")  # the signature closes as it must
