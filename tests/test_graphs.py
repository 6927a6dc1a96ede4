"""Passes recorded and replayed are the passes themselves; what a recording cannot hold is found out.

On a CPU a tape of torch's operations stands for CUDA graphs: shapes, addresses and whatever the host decided
stay fixed on it just so.
"""

from __future__ import annotations

import copy
import gc
import warnings
import weakref
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, build, make
from test_architectures import check
from tiny import PROMPT, VOCAB, given_cache, llama, next_logits, noisy
from torch import Tensor

import specdec_lite as sd
from specdec_lite.decoding import start
from specdec_lite.engines import GraphEngine
from specdec_lite.engines import build as build_engine
from specdec_lite.engines.cuda_graphs import LEAST, SPARE, WIDEST
from specdec_lite.engines.eager import EagerEngine
from specdec_lite.engines.recording import Tape, record_tape, recorder_for
from specdec_lite.loading.probe import probe

GREEDY = sd.Sampling(temperature=0)
COMMON = dict(max_new_tokens=40, sampling=GREEDY, stop=sd.Stop())
EXPERTS = ["Mixtral", "DeepseekV3", "Qwen2Moe", "Olmoe", "GptOss"]  # the host asks which tokens an expert is given
FROM_THE_HOST = "Falcon"  # its module picks heads by lists of places
DENSE = [name for name in ARCHITECTURES if name not in EXPERTS]


def graph(module: Any) -> sd.TransformersModel:
    return sd.TransformersModel(module, engine="graph")


# The same logits and texts


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", DENSE)
def test_texts_are_those_of_transformers(name: str, device: str) -> None:
    if (name, device) == (FROM_THE_HOST, "cuda"):
        pytest.skip("no CUDA graph holds its passes: see test_a_pass_that_copies_from_the_host_runs_as_it_is")
    target = graph(copy.deepcopy(build(name)).to(device))
    probe(target)
    check(name, target)
    assert (target.engine.name, target.engine.trouble) == ("graph", None)
    assert target.engine.recorded > 3


@torch.inference_mode()
def ragged(model: sd.TransformersModel, tolerance: float = 1e-10) -> None:
    """Appends and rewinds by row, through several buckets of slots, against no cache."""
    texts = [[(3 * i * i + 5 * i + row) % VOCAB for i in range(90)] for row in range(2)]
    cache, held = model.new_cache(2, 100), [0, 0]
    for n, forget in ((9, [2, 5]), (4, [0, 4]), (1, [1, 0]), (4, [2, 1]), (60, [3, 20]), (4, [0, 2]), (4, [4, 0])):
        block = torch.tensor([text[at : at + n] for text, at in zip(texts, held, strict=True)], device=model.device)
        logits = model.forward(block, cache)[:, -1].cpu()
        held = [at + n for at in held]
        for row, text in enumerate(texts):
            truth = next_logits(model, text[: held[row]]).cpu()
            torch.testing.assert_close(logits[row], truth, rtol=0, atol=tolerance)
        cache.rewind(forget)
        held = [at - k for at, k in zip(held, forget, strict=True)]
        assert cache.length.tolist() == cache.lengths == held


@pytest.mark.parametrize("name", ["Llama", "Qwen3", "GPT2", "Gemma3", "Mistral", "Falcon"])
def test_logits_are_those_without_a_cache(name: str) -> None:
    model = graph(build(name))
    ragged(model, 1e-5 if name == "Gemma3" else 1e-10)
    assert model.engine.recorded == 4  # 4 rows in two sizes of bucket, 9 and 1; a block of 60 is no step


def test_a_sampled_text_is_the_same_with_every_engine() -> None:
    module, made = llama(), []
    for engine in ("eager", "lean", "graph"):
        target, draft = (sd.TransformersModel(each, engine=engine) for each in (module, noisy(module, 0.1)))
        options = dict(max_new_tokens=40, sampling=sd.Sampling(0.9, top_p=0.95), seed=5)
        made.append(sd.speculative(target, sd.ModelDrafter(draft), [PROMPT, [3]], k=3, **options).tokens)
    assert made[0] == made[1] == made[2]


# Recorded once, replayed from then on


def test_a_recorded_pass_needs_the_engine_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    model = graph(llama())
    first = sd.autoregressive(model, PROMPT, **COMMON)
    made = model.engine.recorded
    assert made == 1  # one row, in the smallest bucket
    assert model.engine.seconds > 0
    plain = model.engine.inner
    monkeypatch.setattr(
        model.engine, "inner", lambda tokens, *rest: plain(tokens, *rest) if tokens.shape[1] > 1 else 1 / 0
    )
    assert sd.autoregressive(model, PROMPT, **COMMON).tokens == first.tokens
    assert model.engine.recorded == made
    with pytest.raises(ZeroDivisionError):
        model.engine.inner(torch.zeros(1, 1))


def test_each_width_and_bucket_is_recorded_when_it_first_comes() -> None:
    target, draft = graph(llama()), graph(noisy(llama(), 0.1))
    for k in (3, 3, 5):
        sd.speculative(target, sd.ModelDrafter(draft), PROMPT, k=k, **COMMON)
    keys = {key[:3] for each in target.engine.spare for key in each.recordings}
    assert {(4, 64, False), (6, 64, False)} <= keys
    assert max(n for n, *_ in keys) <= WIDEST
    assert {key[0] for each in draft.engine.spare for key in each.recordings} <= {1, 2}


def test_an_arena_is_lent_again_and_never_to_two_at_once() -> None:
    model = graph(llama())
    one, two = (start(model, None, PROMPT, k=0, max_new_tokens=9, sampling=GREEDY) for _ in range(2))
    for _ in range(5):
        one.round(), two.round()
    assert one.token_ids == two.token_ids
    assert one.cache.layers[0][0].data_ptr() != two.cache.layers[0][0].data_ptr()
    assert model.engine.recorded == 2 and not model.engine.spare
    place = two.cache.layers[0][0].data_ptr()
    del one, two
    again = model.new_cache(1, 30)
    assert again.layers[0][0].data_ptr() == place and again.lengths == [0] and again.length.tolist() == [0]
    assert len(model.engine.spare) == 1
    assert again.capacity == LEAST


def test_few_arenas_wait_and_forgetting_lets_them_go() -> None:
    model = graph(llama())
    for batch in range(1, SPARE + 3):
        sd.autoregressive(model, [PROMPT] * batch, max_new_tokens=2)
    assert [each.batch for each in model.engine.spare] == list(range(3, SPARE + 3))
    model.engine.forget()
    assert not model.engine.spare


@pytest.mark.parametrize("cleared", [True, False])
def test_what_the_last_text_left_cannot_poison_the_next(cleared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero times a number that is none is none: a hidden slot has to be zeroed before it is lent again."""
    model = graph(llama())
    first = sd.autoregressive(model, PROMPT, **COMMON)
    with torch.inference_mode():
        for kept in (kept for pair in model.engine.spare[0].layers.values() for kept in pair):
            kept.fill_(torch.nan)
    if not cleared:
        monkeypatch.setattr(
            "specdec_lite.engines.cuda_graphs.RecordedCache.clear", lambda self: self.rewind(self.lengths)
        )
        model.engine.spare[0].length.zero_()
        with pytest.raises(ValueError, match="largest logit is nan"):
            sd.autoregressive(model, PROMPT, **COMMON)
        return
    assert sd.autoregressive(model, PROMPT, **COMMON).tokens == first.tokens


def test_a_window_that_the_probe_shortens_is_not_what_is_replayed_later() -> None:
    model = graph(build("Mistral"))
    size = dict(model.windows)
    model.windows = dict.fromkeys(size, 2)
    narrow = sd.autoregressive(model, PROMPT, **COMMON).tokens
    model.windows = size
    eager = sd.TransformersModel(build("Mistral"))
    assert sd.autoregressive(model, PROMPT, **COMMON).tokens == sd.autoregressive(eager, PROMPT, **COMMON).tokens
    assert narrow != sd.autoregressive(model, PROMPT, **COMMON).tokens


def test_tables_that_recordings_read_are_never_let_go() -> None:
    model = graph(llama(context=4096))
    sd.autoregressive(model, PROMPT, max_new_tokens=3)
    table = weakref.ref(model.engine.inner.turns_for.made[LEAST])
    sd.autoregressive(model, PROMPT, max_new_tokens=2 * LEAST)
    gc.collect()
    assert table() is not None and len(model.engine.inner.turns_for.made) > 1


@pytest.mark.parametrize("mode", [True, False])
def test_it_works_in_and_out_of_inference_mode(mode: bool) -> None:
    model = graph(llama())
    for first in (mode, not mode):
        with torch.inference_mode(first):
            cache = model.new_cache(1, 20)
            logits = [model.forward(torch.tensor([[token]]), cache)[0, -1] for token in PROMPT]
            cache.rewind([1])
        truth = [next_logits(model, PROMPT[: i + 1]) for i in range(len(PROMPT))]
        torch.testing.assert_close(torch.stack(logits), torch.stack(truth), rtol=0, atol=1e-11)
        del cache


# What cannot be recorded, and what should not have been


@pytest.mark.parametrize("name", EXPERTS)
def test_a_pass_that_reads_values_runs_as_it_is_and_says_why(name: str) -> None:
    target = graph(build(name))
    with pytest.warns(
        UserWarning, match=rf"no graph of {name}\w+ can be recorded \(aten.nonzero.*engine='eager'"
    ) as told:
        probe(target)
    assert len(told) == 1 and "\n" not in str(told[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(name, target)
    assert target.engine.name == "eager"


class Counts:
    """A module that reckons positions from what the host knows of the cache: right whenever it is asked."""

    def __init__(self, module: Any) -> None:
        self.plain, self.module = module.forward, module
        module.forward = self.forward

    def forward(self, **kwargs: Any) -> Any:
        cache, n = given_cache(kwargs), kwargs["input_ids"].shape[1]
        if cache is not None:
            kwargs["position_ids"] = torch.tensor([[length + i for i in range(n)] for length in cache.lengths])
        return self.plain(**kwargs)


def test_what_the_host_decided_stays_decided_and_the_probe_sees_it() -> None:
    module = Counts(make("GPTNeoX", ARCHITECTURES["GPTNeoX"])).module
    probe(sd.TransformersModel(module))
    with pytest.raises(ValueError, match="other logits in a stepwise forward .* was done again at another"):
        probe(graph(module))


READS = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: 1 if x.sum() > 0 else 0,
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0],
    "unique": lambda x: x.unique(),
}


@pytest.mark.parametrize("name", READS)
def test_a_tape_refuses_what_a_graph_would(name: str) -> None:
    x = torch.ones(3)
    with pytest.raises(RuntimeError, match="reads values on the host"):
        record_tape(lambda: x + bool(READS[name](x) is not None))


MOVES = {
    "away": lambda x: x.to("meta"),
    "a number away": lambda x: x.sum().to("meta"),
    "into": lambda x: torch.zeros(3, device="meta").copy_(x),
    "places": lambda x: torch.zeros(3, device="meta")[x.long()],
}


@pytest.mark.parametrize("name", MOVES)
def test_a_tape_refuses_what_comes_from_another_device(name: str) -> None:
    x = torch.ones(3)
    with pytest.raises(RuntimeError, match="brings tensors to another device"):
        record_tape(lambda: MOVES[name](x))
    record_tape(lambda: x + torch.zeros(3) * torch.tensor(2.0) + torch.zeros(3, device="cpu"))


def test_a_tape_does_again_what_was_done_to_the_tensors_as_they_are_now() -> None:
    x, kept, at = torch.arange(3.0), torch.zeros(5), torch.tensor([1, 2, 3])

    def call() -> Tensor:
        kept.index_copy_(0, at, x)
        view = kept[1:4].view(3, 1)
        return (view + torch.zeros(1)).squeeze(1).clamp_max_(10) * 2

    replay, result = record_tape(call)
    assert result.tolist() == [0, 2, 4]
    x.copy_(torch.tensor([7.0, 8, 90])), at.copy_(torch.tensor([2, 3, 1]))
    replay()
    assert kept.tolist() == [0, 90, 7, 8, 0]
    assert result.tolist() == [20, 14, 16]


def test_a_step_of_a_tape_tells_work_from_views() -> None:
    x = torch.ones(2, 3)
    with Tape() as tape:
        _ = x.t()[1:].reshape(-1).add_(1), x.view(6), x + x
    assert [step.function.__name__ for step in tape.steps if step.computes] == [
        "clone.default", "add_.Tensor", "add.Tensor"
    ]  # fmt: skip


def test_devices_and_names() -> None:
    with pytest.raises(ValueError, match="there are none on mps: use engine='eager'"):
        recorder_for(torch.device("mps"))
    assert build_engine(llama(), "graph").inner.name == "lean"
    assert build_engine(build("GPT2"), "graph").inner.name == "eager"
    assert "graph engine" in repr(sd.load_pair(llama(), noisy(llama(), 0.1), engine="graph"))


def test_on_a_gpu_it_is_the_default() -> None:
    class Elsewhere(type(llama())):
        device = torch.device("cuda")

    module = Elsewhere(llama().config).eval()
    assert isinstance(build_engine(module, "auto"), GraphEngine)
    assert not isinstance(build_engine(module, "eager"), GraphEngine)


# On a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["Llama", "Qwen3", "GPT2", "Gemma3", "Mistral", "Phi3"])
def test_cuda_graphs_give_the_logits_of_no_cache(name: str, dtype: torch.dtype) -> None:
    model = graph(copy.deepcopy(build(name)).to("cuda", dtype))
    probe(model)
    if dtype != torch.bfloat16:
        ragged(model, 1e-3 if dtype == torch.float32 or name == "Gemma3" else 1e-9)
    assert model.engine.trouble is None and model.engine.name == "graph"


@pytest.mark.gpu
def test_a_pass_that_copies_from_the_host_runs_as_it_is() -> None:
    model = graph(copy.deepcopy(build(FROM_THE_HOST)).to("cuda"))
    with pytest.warns(
        UserWarning, match=f"no graph of {FROM_THE_HOST}ForCausalLM can be recorded .*with engine='eager'"
    ):
        probe(model)
    ragged(model)
    assert model.engine.name == "eager"


@pytest.mark.gpu
def test_cuda_graphs_give_the_texts_of_the_other_engines() -> None:
    texts = []
    for engine in ("eager", "lean", "graph"):
        target, draft = (sd.TransformersModel(m.cuda(), engine=engine) for m in (llama(), noisy(llama(), 0.1)))
        for _ in range(2):  # recorded, then replayed
            texts.append(sd.speculative(target, sd.ModelDrafter(draft), [PROMPT, [3]], k=4, **COMMON).tokens)
            texts.append(sd.autoregressive(target, [PROMPT, [3]], **COMMON).tokens)
    assert all(text == texts[0] for text in texts)


class Asking(EagerEngine):
    """Its host wants to know a number."""

    def __call__(self, *given: Any) -> Tensor:
        logits = super().__call__(*given)
        return logits + 0 * logits.max().item()


def asking(module: Any) -> sd.TransformersModel:
    model = sd.TransformersModel(module, engine="eager")
    model.engine = GraphEngine(Asking(module), "Asking")
    return model


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_pass_that_was_refused_leaves_nothing_behind(device: str) -> None:
    module = copy.deepcopy(build("Llama")).to(device)
    here = torch.cuda.current_stream() if device == "cuda" else None
    with pytest.warns(UserWarning, match="no graph of Asking can be recorded .*it runs with engine='eager'"):
        text = sd.autoregressive(asking(module), PROMPT, **COMMON).tokens
    assert here is None or torch.cuda.current_stream() == here
    assert text == sd.autoregressive(sd.TransformersModel(module), PROMPT, **COMMON).tokens
    other = graph(module)  # others are still recorded
    assert sd.autoregressive(other, PROMPT, **COMMON).tokens == text
    assert other.engine.trouble is None and other.engine.recorded > 0
