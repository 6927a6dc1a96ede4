"""Weights in 8 and 4 bits: what the kernels multiply with is what `weight` says, and the model made of it is exact."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import specdec_lite as sd
from specdec_lite.bench.memory import weight_bytes
from specdec_lite.bench.roofline_model import shape_of
from specdec_lite.engines.quantised import QuantisedLinear, quantise
from specdec_lite.loading.probe import probe
from specdec_lite.theory.exact import largest_difference, sequence_distribution, target_distribution

DTYPES = [torch.float32, torch.bfloat16]
GREEDY = sd.Sampling(temperature=0)


def linear(outputs: int = 48, inputs: int = 64, bias: bool = False, dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias).to(dtype)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_it_multiplies_with_the_weights_that_it_says(bits: int, dtype: torch.dtype, bias: bool) -> None:
    layer = QuantisedLinear(linear(bias=bias, dtype=dtype), bits)
    x = torch.randn(2, 5, 64).to(dtype)
    exact = x.double() @ layer.weight.double().t() + (layer.bias.double() if bias else 0)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(layer(x).double(), exact, rtol=tolerance, atol=tolerance)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bits", [8, 4])
def test_one_row_and_several_are_the_same_arithmetic(bits: int, dtype: torch.dtype) -> None:
    layer = QuantisedLinear(linear(192, 576, dtype=dtype), bits)
    x = torch.randn(9, 576).to(dtype)
    alone = torch.cat([layer(row.unsqueeze(0)) for row in x])
    assert torch.equal(layer(x[:5]), alone[:5])
    assert torch.equal(layer(x), alone)


@pytest.mark.parametrize(("bits", "steps"), [(8, 254), (4, 15)])
def test_weights_are_rounded_to_nearest(bits: int, steps: int) -> None:
    given = linear()
    layer = QuantisedLinear(given, bits)
    weight = given.weight.detach()
    if bits == 8:
        width = 2 * weight.abs().amax(1, keepdim=True) / steps
    else:
        groups = weight.unflatten(1, (-1, 32))
        width = ((groups.amax(-1) - groups.amin(-1)) / steps).repeat_interleave(32, 1)
    apart = (layer.weight - weight).abs()
    assert (apart <= 0.5 * width * 1.001 + 1e-6).all()
    assert apart.max() > 0.3 * width.min()  # and rounded they are


def test_what_has_16_levels_loses_nothing_in_4_bits() -> None:
    """As the weights of a Q4 file do: a step and an offset for each group of 32."""
    torch.manual_seed(0)
    codes = torch.randint(0, 16, (48, 2, 32)).float()
    codes[..., 0], codes[..., 1] = 0, 15  # the ends are taken
    given = nn.Linear(64, 48, bias=False)
    given.weight.data = (codes * 0.125 - 1).flatten(1)
    assert torch.equal(QuantisedLinear(given, 4).weight, given.weight)


def test_what_cannot_be_held() -> None:
    with pytest.raises(ValueError, match="bits must be 8 or 4, got 3"):
        QuantisedLinear(linear(), 3)
    with pytest.raises(ValueError, match="need a multiple of 32 inputs, got 40"):
        QuantisedLinear(linear(inputs=40), 4)
    with pytest.raises(ValueError, match="are for a CPU, and these are on meta"):
        QuantisedLinear(linear().to("meta"), 8)


def module(vocab: int = 37, tied: bool = True) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=vocab, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=160, initializer_range=0.4, tie_word_embeddings=tied,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


def quantised(bits: int, engine: str = "lean", vocab: int = 37, tied: bool = True) -> sd.TransformersModel:
    made = module(vocab, tied)
    quantise(made, bits)
    return sd.TransformersModel(made, engine=engine)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("engine", ["lean", "eager", "graph"])
@pytest.mark.parametrize("bits", [8, 4])
def test_every_engine_runs_the_quantised_model(bits: int, engine: str, tied: bool) -> None:
    model = quantised(bits, engine, tied=tied)
    probe(model)
    plain = module(tied=tied)
    kinds = {name: part for name, part in model.module.named_modules() if isinstance(part, QuantisedLinear)}
    assert kinds["lm_head"].bits == 8
    assert {part.bits for name, part in kinds.items() if name != "lm_head"} == {bits}
    for name, part in kinds.items():
        parent, _, last = name.rpartition(".")
        stands_for = nn.Linear(part.in_features, part.out_features, bias=False)
        stands_for.weight.data = part.weight.clone()
        setattr(plain.get_submodule(parent), last, stands_for)
    ids = torch.tensor([[5, 1, 7, 7, 2]])
    with torch.inference_mode():
        mine, theirs = model.forward(ids, model.new_cache(1, 8)), plain(input_ids=ids).logits
        original = module(tied=tied)(input_ids=ids).logits
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-3)
    assert (mine - original).abs().max() > 1e-2  # it is another model


@pytest.mark.parametrize("bits", [8, 4])
def test_speculation_is_exact_for_it(bits: int) -> None:
    model, how = quantised(bits, vocab=3), dict(max_new_tokens=3, stop=sd.Stop([2]))
    made = sequence_distribution(model, sd.EarlyExitDrafter(1), [0, 1, 0], k=2, **how)
    assert largest_difference(made, target_distribution(model, [0, 1, 0], **how)) < 1e-6
    original = sd.TransformersModel(module(3), engine="lean")
    assert largest_difference(made, target_distribution(original, [0, 1, 0], **how)) > 1e-4


def test_it_is_counted() -> None:
    model = quantised(4)
    plain = sd.TransformersModel(module(), engine="lean")
    assert model.parameters == plain.parameters + 37 * 32  # the output has weights of its own now
    layers = sum(part.count for part in model.module.modules() if isinstance(part, QuantisedLinear)) - 37 * 32
    shape = shape_of(model)
    norms = 5 * 32 * 4
    assert shape.weight_bytes == layers // 2 + layers // 32 * 8 + 37 * 32 + 37 * 4 + norms
    assert weight_bytes(model) == shape.weight_bytes + 37 * 32 * 4
    assert shape.multiplied == layers + 37 * 32


def test_it_can_be_copied_and_pickled() -> None:
    model, how = quantised(4), dict(max_new_tokens=12, sampling=GREEDY)
    text = sd.autoregressive(model, [5, 1, 7], **how).tokens
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert sd.autoregressive(again, [5, 1, 7], **how).tokens == text


def test_bits_are_an_argument_of_loading(tmp_path: Path) -> None:
    module().save_pretrained(tmp_path / "model")
    model = sd.load_model(tmp_path / "model", bits=4)
    assert model.dtype == torch.bfloat16
    assert model.engine.name == "lean"
    assert len(sd.speculative(model, sd.PromptLookupDrafter(), [1, 2, 1], max_new_tokens=8).tokens) == 8
    assert sd.load_model(tmp_path / "model", bits=8, dtype="float32").dtype == torch.float32
    with pytest.raises(ValueError, match="bits must be 8 or 4, got 2"):
        sd.load_model(tmp_path / "model", bits=2)
    with pytest.raises(ValueError, match="a model object stays as it is"):
        sd.load_model(module(), bits=8)
