"""Planted differences of every kind get their name: same, tie, rounding, bug."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from tiny import PROMPT, VOCAB, llama, noisy

import specdec_lite as sd
from specdec_lite.teaching.museum import SlackRewind
from specdec_lite.theory.greedy_difference import FACTOR, Difference, explain_difference, in_float64, next_logits

GREEDY: dict[str, Any] = dict(max_new_tokens=40, sampling=sd.Sampling(temperature=0))


def wrapped(seed: int = 0, dtype: torch.dtype = torch.float64) -> sd.TransformersModel:
    return sd.TransformersModel(llama(seed).to(dtype))


def both(target: sd.TransformersModel, verified_by: Any = None) -> tuple[list[int], list[int]]:
    """A naive and a speculative text; the latter verified by another model where one is given."""
    draft = sd.ModelDrafter(sd.TransformersModel(noisy(target.module, 0.3)))
    naive = sd.autoregressive(target, PROMPT, **GREEDY).tokens
    return naive, sd.speculative(verified_by or target, draft, PROMPT, k=4, **GREEDY).tokens


@cache
def twins(step: float, seed: int = 0) -> sd.TransformersModel:
    """Float32, where tokens 2i and 2i + 1 nearly tie: their output weights differ by at most `step`, relatively."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=64, hidden_size=96, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=160, initializer_range=0.2, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        module = LlamaForCausalLM(config).eval()
        weight = module.lm_head.weight
        weight[1::2] = weight[::2] * (1 + step * torch.randint(-1, 2, weight[::2].shape))
    return sd.TransformersModel(module)


# The control


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_right_decoder_gives_the_same_text(dtype: torch.dtype) -> None:
    target = wrapped(dtype=dtype)
    told = explain_difference(target, PROMPT, *both(target))
    assert told == Difference("same")
    assert str(told) == "Same: both texts have the same tokens. There is nothing to explain."


# Ties


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_two_identical_rows_of_output_weights_are_a_tie(dtype: torch.dtype) -> None:
    target = wrapped(dtype=dtype)
    naive, _ = both(target)
    unused = next(token for token in range(VOCAB) if token not in naive)
    with torch.no_grad():
        target.module.lm_head.weight[unused] = target.module.lm_head.weight[naive[7]]
    told = explain_difference(target, PROMPT, naive, [*naive[:7], unused, *naive[8:]])
    assert (told.kind, told.position, told.tokens) == ("tie", 7, (naive[7], unused))
    assert told.behind == told.behind_own == (0, 0)
    assert "either is a greedy text" in str(told)


# Rounding


def test_a_sum_in_another_order_is_rounding() -> None:
    """Real runs: at every step two tokens almost tie, and forwards of one and of five tokens sum differently."""
    found = [explain_difference(target, PROMPT, *both(target)) for target in (twins(2**-23, seed) for seed in range(3))]
    kinds = {each.kind for each in found}
    assert "rounding" in kinds
    assert kinds <= {"rounding", "same"}
    told = next(each for each in found if each.kind == "rounding")
    assert told.tokens[0] // 2 == told.tokens[1] // 2
    assert max(told.behind) < told.error < 1e-4
    assert f"float32 errs by up to {told.error:.3g} here: rounding decided." in str(told)


def test_bfloat16_is_allowed_what_it_errs_and_float64_is_not() -> None:
    """The same two tokens of the same model: rounding where the dtype is coarse, a bug where it is fine."""
    coarse = sd.TransformersModel(copy.deepcopy(twins(2**-7).module).to(torch.bfloat16))
    first, second = next_logits(coarse, PROMPT).topk(2).indices.tolist()
    told = explain_difference(coarse, PROMPT, [first], [second])
    assert told.kind == "rounding"
    assert told.dtype == torch.bfloat16
    assert 0 < max(told.behind) <= FACTOR * told.error
    same = explain_difference(in_float64(coarse), PROMPT, [first], [second])
    assert (same.kind, same.behind, same.error) == ("bug", told.behind, 0)


def test_the_line_between_rounding_and_a_bug_is_the_measured_error() -> None:
    """Lift a token to the best logit, less a chosen multiple of the error."""
    target = twins(0.5)  # no near ties
    own, true = next_logits(target, PROMPT), next_logits(in_float64(target), PROMPT)
    error, best = (own - true).abs().max().item(), true.argmax().item()
    second = true.topk(2).indices[1].item()
    with torch.no_grad():
        bias = torch.nn.Parameter(torch.zeros(64, dtype=torch.float64))
    for multiple, kind in ((2.0, "rounding"), (8.0, "bug"), (100.0, "bug"), (1000.0, "bug")):  # not in `FACTOR`s
        reference = in_float64(target)
        bias.data[second] = true[best] - true[second] - multiple * error
        reference.module.lm_head.bias = bias
        target.module.lm_head.bias = torch.nn.Parameter(bias.detach().float())
        told = explain_difference(target, PROMPT, [best], [second], reference=reference)
        assert (told.kind, told.tokens) == (kind, (best, second))
        assert max(told.behind) == pytest.approx(multiple * error, rel=1e-6)
    target.module.lm_head.bias = None


# Bugs


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_decoder_whose_target_rewinds_one_too_few_is_a_bug(dtype: torch.dtype) -> None:
    for seed in range(3):
        target = wrapped(seed, dtype)
        told = explain_difference(target, PROMPT, *both(target, verified_by=SlackRewind(target)))
        assert told.kind == "bug"
        assert told.behind[0] == 0  # the naive text is right
        assert told.behind[1] > 1000 * told.error
        assert "rounding can't do that" in str(told)


def test_a_text_that_ends_early_or_goes_on_is_a_bug() -> None:
    target = wrapped()
    naive, _ = both(target)
    for texts, tokens in (((naive, naive[:-2]), (naive[-2], None)), ((naive[:5], naive), (None, naive[5]))):
        told = explain_difference(target, PROMPT, *texts)
        assert (told.kind, told.tokens, told.position) == ("bug", tokens, min(map(len, texts)))
        assert "the end" in str(told)
        assert "goes on where the other ends" in str(told)


# The report and what it leaves alone


def test_margins_and_errors_are_those_of_the_logits() -> None:
    target = wrapped(dtype=torch.float32)
    naive, _ = both(target)
    other = (naive[3] + 1) % VOCAB
    told = explain_difference(target, PROMPT, naive, [*naive[:3], other])
    own = next_logits(target, PROMPT + naive[:3])
    with torch.inference_mode():
        ids = torch.tensor([PROMPT + naive[:3]])
        true = copy.deepcopy(target.module).double()(input_ids=ids, use_cache=False).logits[0, -1]
    assert told.behind == pytest.approx([(true.max() - true[token]).item() for token in (naive[3], other)])
    assert told.behind_own == pytest.approx([(own.max() - own[token]).item() for token in (naive[3], other)])
    assert told.error == (own - true).abs().max().item()
    assert str(told).count(". ") == 1  # two sentences
    assert f"at new token 3 the naive text has token {naive[3]} and the speculative one token {other}." in str(told)


def test_the_model_is_left_alone_and_a_reference_serves_many_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    target = wrapped(dtype=torch.bfloat16)
    weights = copy.deepcopy(target.module.state_dict())
    reference = in_float64(target)
    assert reference.dtype == torch.float64
    assert {p.dtype for p in reference.module.parameters()} == {torch.float64}
    monkeypatch.setattr("specdec_lite.theory.greedy_difference.in_float64", lambda _: pytest.fail("copied again"))
    assert explain_difference(target, PROMPT, [1], [2], reference=reference).dtype == torch.bfloat16
    assert all(torch.equal(weights[name], weight) for name, weight in target.module.state_dict().items())
    assert target.dtype == torch.bfloat16


def test_tied_weights_stay_tied_in_the_copy() -> None:
    module = llama().float()
    module.lm_head.weight = module.model.embed_tokens.weight
    made = in_float64(sd.TransformersModel(module)).module
    assert made.lm_head.weight is made.model.embed_tokens.weight
    assert made.lm_head.weight is not module.lm_head.weight


def test_what_cannot_be_explained_is_refused() -> None:
    target = wrapped()
    with pytest.raises(TypeError, match="got TableModel"):
        explain_difference(sd.TableModel(4), [0], [1], [2])
    for arguments in (([], [1], [2]), ([0], [VOCAB], [2]), ([0], [1], [-1])):
        with pytest.raises(ValueError, match=rf"from 0 to {VOCAB - 1} and a prompt of one or more, got"):
            explain_difference(target, *arguments)
    target.module.hf_quantizer = object()
    with pytest.raises(ValueError, match="quantised model has no float64 copy"):
        explain_difference(target, PROMPT, [1], [2])
