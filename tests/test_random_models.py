"""Models of a named shape with random weights: their size, where and how they are made, and what is refused."""

from __future__ import annotations

import pytest
import tiny
import torch

import specdec_lite as sd
from specdec_lite.bench import models_under_test as subjects
from specdec_lite.cli import main
from specdec_lite.loading import checkpoints, llamas
from specdec_lite.loading import random_weights as random_models
from specdec_lite.loading.llamas import OWN, PUBLISHED, Llama
from specdec_lite.loading.random_weights import check_memory, made_up, random_llama, shape_named

CPU = torch.device("cpu")
TOY = Llama("Llama Toy", 2, 16, 24, 4, 2, 8, 3000, True, "")
GUESS = Llama("Llama Guess", 1, 8, 16, 2, 1, 4, 40, False, "")


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (TOY, GUESS):
        monkeypatch.setitem(llamas.PUBLISHED, each.name, each)


def weights(module: torch.nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


@pytest.mark.parametrize("shape", [*(PUBLISHED | OWN).values(), TOY, GUESS], ids=lambda each: each.name)
def test_a_shape_has_the_weights_that_it_counts(shape: Llama) -> None:
    module = random_llama(shape, torch.device("meta"), torch.bfloat16)  # which takes no memory
    assert weights(module) == shape.parameters
    assert {each.dtype for each in module.parameters()} == {torch.bfloat16}
    assert module.config.num_key_value_heads == shape.kv_heads


def test_it_is_made_in_place_seeded_and_leaves_the_dice_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (random_llama(TOY, CPU, torch.bfloat16, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() == torch.float32
    pairs = list(zip(one.parameters(), same.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)
    assert one.lm_head.weight is one.model.embed_tokens.weight
    assert not one.training
    assert made_up(one)
    assert not made_up(tiny.llama())
    assert random_llama(TOY, CPU).dtype == torch.float32


@pytest.mark.parametrize("name", ["random:Llama Toy", "random:llama-toy", "RANDOM:llama toy", "random: Llama-Toy "])
def test_a_name_is_read_kindly(name: str, toys: None) -> None:
    assert shape_named(name) is TOY
    assert checkpoints.locate(name, "target", None) == "random:Llama Toy"


def test_what_is_no_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no shape 'Llama 9B': after random: give one of Llama 1B, Llama 3B"):
        sd.load_pair("random:Llama 9B", "random:Llama 1B")
    with pytest.raises(ValueError, match="has random weights, and those have no revision, got 'main'"):
        sd.load_pair("random:Llama 1B", "random:Llama 1B", revision="main")


def test_a_pair_decodes_and_tokens_without_a_text_do_no_harm(toys: None) -> None:
    pair = sd.load_pair("random:llama-toy", "random:Llama Guess")
    assert pair.target.vocab_size == 3000 > len(pair.tokenizer)
    assert pair.target.end_tokens == ()
    made = sd.speculative(pair.target, sd.ModelDrafter(pair.draft), "def f", k=3, max_new_tokens=60)
    assert max(made.tokens) >= len(pair.tokenizer)
    assert isinstance(made.text, str)
    pieces = sd.stream_text(pair.target, sd.ModelDrafter(pair.draft), "def f", k=3, max_new_tokens=60)
    assert "".join(pieces) == made.text


def test_in_bfloat16_the_logits_are_finite_and_the_probe_is_content(toys: None) -> None:
    pair = sd.load_pair("random:Llama Toy", "random:Llama Guess", dtype="bfloat16")
    assert pair.target.dtype == torch.bfloat16
    with torch.inference_mode():
        logits = pair.target.module(torch.arange(64)[None]).logits
    assert logits.isfinite().all()


def test_what_does_not_fit_is_refused_before_anything_is_made(toys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "random_llama", lambda *_: pytest.fail("a model was made"))
    both = 4 * (TOY.parameters + GUESS.parameters)
    monkeypatch.setattr(random_models, "free_bytes", lambda device: both - 1)
    with pytest.raises(ValueError, match="for Llama Toy and Llama Guess in float32 take 0.0 GB, and 0.0 GB are"):
        sd.load_pair("random:Llama Toy", "random:Llama Guess")
    check_memory([TOY], CPU)  # alone it would fit
    check_memory([TOY, GUESS], CPU, torch.bfloat16)
    monkeypatch.setattr(random_models, "free_bytes", lambda device: None)  # nothing tells
    check_memory(PUBLISHED.values(), CPU)


def test_this_machine_says_how_much_is_free() -> None:
    assert random_models.free_bytes(CPU) is None or random_models.free_bytes(CPU) > 1 << 20


def test_a_gpu_times_the_largest_shape_that_leaves_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "last_level_cache", lambda device: 50 << 20)
    cuda = torch.device("cuda")
    for free, dtype, name in (
        (80e9, None, "Llama 8B"), (80e9, torch.float32, "Llama 8B"), (141e9, None, "Llama 8B"),
        (180e9, None, "Llama 70B"), (19e9, None, "Llama 3B"), (1e9, None, "Llama wide"),
    ):  # fmt: skip
        monkeypatch.setattr(subjects, "free_bytes", lambda device, free=free: free)
        assert subjects.wide_shape(cuda, dtype).name == name
    assert subjects.wide_shape(CPU, None).name == "Llama wide"


# The commands

SHORT = ["--max-new-tokens", "12", "--repeats", "1", "--threads", "1"]
PAIR = ["--target", "random:Llama Toy", "--draft", "random:llama-guess"]


@pytest.mark.parametrize("extra", [[], ["--drafter", "lookup"]])
def test_the_doctor_asks_for_an_agreement(extra: list[str], toys: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *PAIR, *SHORT, "--k-max", "3", *extra]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "random:Llama Toy has random weights: its text means nothing" in err
    assert "--agreement" in err


def test_with_an_agreement_the_doctor_says_synthetic(toys: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *PAIR, *SHORT, "--k-max", "3", "--agreement", "0.7"]) == 0
    assert "synthetic acceptance: every draft token is accepted with chance 0.70" in capsys.readouterr().out


def test_a_bench_says_that_the_weights_are_random(toys: None, capsys: pytest.CaptureFixture[str]) -> None:
    how = ["--k", "2", "--temperatures", "0", "--prompts", "1", "--max-new-tokens", "6", "--repeats", "1"]
    assert main(["bench", *PAIR, *how, "--only", "own"]) == 0
    assert "Random weights. What they accept means nothing" in capsys.readouterr().out


@pytest.mark.gpu
def test_on_a_gpu_it_is_made_there_in_bfloat16() -> None:
    device = torch.device("cuda", 0)
    before = torch.cuda.get_rng_state(device)
    module = random_llama(TOY, device)
    assert torch.equal(torch.cuda.get_rng_state(device), before)
    assert {(each.device, each.dtype) for each in module.parameters()} == {(device, torch.bfloat16)}
    with pytest.raises(ValueError, match="are free on cuda"):
        check_memory([PUBLISHED["Llama 70B"]] * 20, device)
