"""Engines run one model: the same logits, cached, rewound and ragged, whichever of them does it."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import transformers
from architectures import ARCHITECTURES, build
from tiny import PROMPT, llama, noisy
from torch import nn
from torch.nn.functional import linear
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import specdec_lite as sd
from specdec_lite.engines import LARGE
from specdec_lite.engines import build as build_engine
from specdec_lite.engines.attention import shared_sdpa, without_copies
from specdec_lite.engines.cpu_kernels import ByRows, blocks, by_rows, half, product
from specdec_lite.engines.lean import fits
from specdec_lite.loading.probe import probe

GREEDY = sd.Sampling(temperature=0)
LEAN = ["Llama", "Mistral", "Qwen2", "Qwen3"]


@torch.inference_mode()
@pytest.mark.parametrize("name", LEAN)
def test_lean_logits_are_the_modules_own(name: str) -> None:
    eager, lean = (sd.TransformersModel(build(name), engine=engine) for engine in ("eager", "lean"))
    texts = torch.tensor([[(3 * i * i + 5 * i + row) % 37 for i in range(24)] for row in range(3)])
    caches, held = [model.new_cache(3, 40) for model in (eager, lean)], [0, 0, 0]
    for n, forget in ((9, [2, 5, 0]), (4, [0, 4, 1]), (1, [1, 0, 0]), (5, [3, 5, 5])):
        block = torch.stack([texts[row, at : at + n] for row, at in enumerate(held)])
        for last in (False, True):
            mine, truth = (m.forward(block, c, last) for m, c in zip((lean, eager), reversed(caches), strict=True))
            assert mine.shape == truth.shape
            torch.testing.assert_close(mine, truth, rtol=0, atol=1e-12)
            for cache in caches if not last else ():
                cache.rewind([n] * 3)
        held = [at + n - f for at, f in zip(held, forget, strict=True)]
        for cache in caches:
            cache.rewind(forget)
    probe(lean)


@pytest.mark.parametrize("name", LEAN)
def test_lean_text_is_that_of_transformers(name: str) -> None:
    module = build(name)
    target, draft = (sd.TransformersModel(each, engine="lean") for each in (module, noisy(module, 0.05)))
    theirs = module.generate(torch.tensor([PROMPT]), max_new_tokens=25, do_sample=False, pad_token_id=0)
    common = dict(max_new_tokens=25, sampling=GREEDY, stop=sd.Stop())
    assert sd.autoregressive(target, PROMPT, **common).tokens == theirs[0, len(PROMPT) :].tolist()
    made = sd.speculative(target, sd.ModelDrafter(draft), [PROMPT, [3]], k=4, **common)
    assert made.tokens[0] == theirs[0, len(PROMPT) :].tolist()


def test_no_key_is_copied_for_queries_that_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grouped-query heads: attention is given views of the cache, whatever the number of rows."""
    seen: list[torch.Tensor] = []
    real = torch.nn.functional.scaled_dot_product_attention

    def spy(queries: Any, keys: Any, values: Any, **options: Any) -> Any:
        seen.extend([keys, values])
        return real(queries, keys, values, **options)

    monkeypatch.setattr("specdec_lite.engines.attention.scaled_dot_product_attention", spy)
    model = sd.TransformersModel(build("Llama"), engine="lean")
    assert model.engine.layers[0].heads > model.engine.layers[0].kv_heads
    cache = model.new_cache(2, 32)
    with torch.inference_mode():
        for n in (1, 5):
            model.forward(torch.ones(2, n, dtype=torch.long), cache)
    held = {kept.data_ptr() for pair in cache.layers.values() for kept in pair}
    assert len(seen) == 2 * 2 * 2
    assert {each.data_ptr() for each in seen} == held


class Copies(TorchDispatchMode):
    """Notes tensors made inside the block that are as large as all visible keys of a layer, and as wide."""

    def __init__(self, keys: torch.Tensor) -> None:  # [batch, kv_heads, capacity, head_dim]
        super().__init__()
        self.keys, self.found = keys, []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        given = {each.untyped_storage().data_ptr() for each in tree_leaves(args) if isinstance(each, torch.Tensor)}
        for each in tree_leaves(made):
            large = isinstance(each, torch.Tensor) and each.numel() >= self.keys.numel()
            if large and each.shape[-1] == self.keys.shape[-1] and each.untyped_storage().data_ptr() not in given:
                self.found.append(function)
        return made


def copies(name: str, rows: int) -> list[Any]:
    model = sd.TransformersModel(build(name))
    cache = model.new_cache(1, 90)
    with torch.inference_mode():
        model.forward(torch.ones(1, 80, dtype=torch.long), cache)
        with Copies(cache.layers[0][0]) as seen:
            model.forward(torch.ones(1, rows, dtype=torch.long), cache)
    return seen.found


SHARED = [name for name, config in ARCHITECTURES.items() if config.get("num_key_value_heads") == 2]


@pytest.mark.parametrize("name", [name for name in SHARED if name not in ("Gemma2", "GptOss")])
def test_nor_with_transformers_own_forward(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Except in Gemma2 and GptOss, whose scores are changed on the way, by an attention that copies."""
    assert not copies(name, 5) and not copies(name, 1)
    monkeypatch.setattr("specdec_lite.engines.eager.without_copies", nullcontext)
    assert copies(name, 5), "the comparison could not fail"


def test_transformers_own_attention_is_left_as_it_was() -> None:
    interface = transformers.modeling_utils.ALL_ATTENTION_FUNCTIONS
    plain, seen = interface["sdpa"], []
    module = build("Qwen2")
    with without_copies():
        assert interface["sdpa"] is shared_sdpa
        with without_copies():
            assert interface["sdpa"] is shared_sdpa
        assert interface["sdpa"] is shared_sdpa
    assert interface["sdpa"] is plain
    with pytest.raises(ZeroDivisionError), without_copies():
        1 / 0  # noqa: B018
    assert interface["sdpa"] is plain

    def theirs(*args: Any, **options: Any) -> Any:
        seen.append(args[0])
        return plain(*args, **options)

    interface["sdpa"] = theirs
    try:
        sd.autoregressive(sd.TransformersModel(module), PROMPT, max_new_tokens=2)
        assert seen and interface["sdpa"] is theirs
    finally:
        del interface["sdpa"]


@pytest.mark.parametrize("options", [dict(softcap=3.0), dict(position_bias=1.0), dict(dropout=0.5)], ids=str)
def test_what_changes_the_scores_is_left_to_transformers(options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    where = "transformers.integrations.sdpa_attention.sdpa_attention_forward"
    monkeypatch.setattr(where, lambda *args, **given: calls.append(given) or (args[1], None))
    queries, keys, mask = torch.ones(1, 4, 3, 8), torch.ones(1, 2, 5, 8), torch.zeros(1, 1, 3, 5)
    out, _ = shared_sdpa(None, queries, keys, keys, mask)
    assert out.shape == (1, 3, 4, 8) and not calls
    shared_sdpa(None, queries, keys, keys, mask, **options)
    shared_sdpa(None, queries, keys, keys, None)
    shared_sdpa(None, queries, queries, queries, mask)
    assert len(calls) == 3


def test_nothing_of_the_module_is_written() -> None:
    module = llama()
    before = copy.deepcopy(module.state_dict())
    model = sd.TransformersModel(module, engine="lean")
    sd.autoregressive(model, PROMPT, max_new_tokens=5)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert set(vars(module)) == set(vars(llama()))


def test_lean_takes_only_what_it_knows() -> None:
    assert all(fits(build(name)) for name in LEAN)
    assert not any(fits(build(name)) for name in ARCHITECTURES if name not in LEAN)
    changed = llama()
    changed.model.layers[0].mlp.up_proj = nn.utils.parametrizations.weight_norm(nn.Linear(16, 24, bias=False).double())
    hooked, replaced = llama(), llama()
    hooked.model.layers[1].register_forward_hook(lambda *_: None)
    replaced.model.norm.forward = replaced.model.norm.forward  # as accelerate does, to fetch weights
    for module in (changed.eval(), hooked, replaced, build("GPT2")):
        assert not fits(module)
        assert sd.TransformersModel(module, engine="auto").engine.name == "eager"
        with pytest.raises(ValueError, match="the lean engine runs Llama.*engine='eager' runs it"):
            sd.TransformersModel(module, engine="lean")
    assert sd.TransformersModel(llama(), engine="auto").engine.name == "lean"
    assert sd.TransformersModel(llama()).engine.name == "eager"
    with pytest.raises(ValueError, match="engine must be one of auto, eager, lean, graph, got 'fast'"):
        sd.TransformersModel(llama(), engine="fast")


def test_a_second_copy_of_a_large_model_is_not_taken_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    module = llama()
    assert sum(weight.numel() for weight in module.parameters()) < LARGE
    monkeypatch.setattr("specdec_lite.engines.LARGE", 100)
    assert build_engine(module, "auto").name == "eager"
    assert build_engine(module, "lean").name == "lean"


# Matrix products


def layers(*outputs: int, inputs: int = 64, bias: bool = False, exact: bool = False) -> list[nn.Linear]:
    torch.manual_seed(0)
    made = [nn.Linear(inputs, each, bias=bias) for each in outputs]
    for each in made if exact else ():
        each.weight.data = each.weight.data.half().float()
    return made


@torch.inference_mode()
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("exact", [False, True], ids=["float32 weights", "float16 weights"])
@pytest.mark.parametrize("outputs", [(24,), (16, 8, 8), (8192, 4096)], ids=["one", "three", "large"])
def test_products_are_those_of_the_layers(outputs: tuple[int, ...], exact: bool, bias: bool) -> None:
    made = layers(*outputs, bias=bias, exact=exact)
    run = product(made)
    for rows in (1, 2, 5, 17):
        x = torch.randn(2, rows, 64)
        truth = torch.cat([each.double()(x.double()) for each in copy.deepcopy(made)], -1)
        torch.testing.assert_close(run(x).double(), truth, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_float16_holds_only_weights_that_lose_nothing() -> None:
    exact, rounded = layers(24, exact=True)[0].weight, layers(24)[0].weight
    assert half(rounded, None) is None
    assert half(torch.full((4, 64), 1e6), None) is None  # beyond float16
    if (run := half(exact, None)) is not None:  # the processor decides
        x = torch.randn(5, 64)
        torch.testing.assert_close(run(x), linear(x, exact), rtol=0, atol=1e-5)
    assert blocks(rounded, None) is None  # too small to be worth it


@torch.inference_mode()
def test_bfloat16_is_packed_where_the_processor_multiplies_it() -> None:
    (made,) = layers(512, inputs=256)
    made = made.bfloat16()
    run = blocks(made.weight, None)
    if run is None:
        pytest.skip("this processor or this torch packs no bfloat16")
    x = torch.randn(40, 256).bfloat16()
    exact, spacing = x.double() @ made.weight.double().t(), 2**-8
    for rows in (1, 2, 5, 40):
        torch.testing.assert_close(run(x[:rows]).double(), exact[:rows], rtol=spacing, atol=1e-3)
    assert blocks(layers(24)[0].bfloat16().weight, None) is None  # too small to be worth it


onednn = pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_convolution_pointwise"), reason="this torch has no oneDNN")


@onednn
@torch.inference_mode()
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("outputs", "inputs"), [(64, 32), (37, 50)], ids=["even", "odd"])
def test_a_kernel_for_each_number_of_rows_gives_the_same(outputs: int, inputs: int, bias: bool) -> None:
    (made,) = layers(outputs, inputs=inputs, bias=bias)
    run = ByRows([made.weight], made.bias)
    for rows in range(1, 41):
        x = torch.randn(rows, inputs)
        found = run(x)
        assert found.is_contiguous()
        torch.testing.assert_close(found, made(x), rtol=0, atol=1e-5)
    batch = torch.randn(2, 2, inputs)
    torch.testing.assert_close(run(batch), made(batch), rtol=0, atol=1e-5)
    across = torch.randn(inputs, 4).t()  # not contiguous
    torch.testing.assert_close(run(across), made(across), rtol=0, atol=1e-5)


@onednn
@torch.inference_mode()
def test_strips_are_made_again_for_another_number_of_threads() -> None:
    (made,) = layers(64)
    run, threads, x = ByRows([made.weight], None), torch.get_num_threads(), torch.randn(3, 64)
    first = run.strips
    try:
        run(x)
        assert run.strips is first
        torch.set_num_threads(threads + 1)
        torch.testing.assert_close(run(x), made(x), rtol=0, atol=1e-5)
        assert run.strips is not first
    finally:
        torch.set_num_threads(threads)


@onednn
def test_kernels_by_rows_are_for_large_weights_and_the_processors_they_help(monkeypatch: pytest.MonkeyPatch) -> None:
    (large,), (small,) = layers(8192), layers(64)
    for capability in ("AVX2", "AVX512", "DEFAULT"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda said=capability: said)
        assert (by_rows(large.weight, None) is not None) == (capability == "AVX2")
        assert by_rows(small.weight, None) is None


@pytest.mark.parametrize("outputs", [(16, 8), (8192, 4096)], ids=["small", "large"])
def test_another_torch_without_these_kernels_still_works(
    outputs: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> None:
        raise RuntimeError("this processor has no such kernel")

    monkeypatch.setattr(torch, "fbgemm_pack_gemm_matrix_fp16", gone)
    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", gone)
    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_convolution_weight", gone)
    made = layers(*outputs, exact=True)
    x = torch.randn(3, 64)
    with torch.inference_mode():
        torch.testing.assert_close(product(made)(x), torch.cat([each(x) for each in made], -1))


@pytest.mark.parametrize("inference", [False, True])
def test_weights_stay_what_they_were_in_whatever_mode_an_engine_is_built(inference: bool) -> None:
    with torch.inference_mode(inference):
        module = llama()
    with torch.inference_mode(not inference):
        sd.TransformersModel(module, engine="lean")
    assert all(weight.is_inference() == inference for weight in module.parameters())
    with torch.set_grad_enabled(not inference):
        logits = module(input_ids=torch.tensor([PROMPT]), use_cache=False).logits
    assert logits.requires_grad == (not inference)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_run_as_they_are(dtype: torch.dtype) -> None:
    made = [each.to(dtype) for each in layers(16, 8, exact=True)]
    x = torch.randn(3, 64, dtype=dtype)
    with torch.inference_mode():
        assert torch.equal(product(made)(x), torch.cat([each(x) for each in made], -1))
