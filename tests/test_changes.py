"""A module changed after loading: what runs is what it would compute now, or a clear error, never a mixture."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from types import MethodType
from typing import Any

import pytest
import torch
from architectures import build, scaled
from tiny import PROMPT, VOCAB, llama, noisy
from torch import nn
from torch.nn.utils import parametrize, prune

import specdec_lite as sd
from specdec_lite.engines.snapshot import Digest
from specdec_lite.loading.probe import probe

ENGINES = ["eager", "lean", "graph", "auto"]
GREEDY = sd.Sampling(temperature=0)
COMMON = dict(max_new_tokens=9, seed=4, stop=sd.Stop())
Change = Callable[[Any], Any]


def attention(module: Any) -> Any:
    return module.model.layers[0].self_attn


def linear(outputs: int, inputs: int) -> nn.Linear:
    """Other weights than those of `llama()`."""
    made = nn.Linear(inputs, outputs, bias=False, dtype=torch.float64).eval()
    nn.init.normal_(made.weight, std=0.4, generator=torch.Generator().manual_seed(5))
    return made


class Adapted(nn.Linear):
    """A linear layer with something added, as adapters are."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__(inner.in_features, inner.out_features, bias=False, dtype=inner.weight.dtype)
        self.weight, self.added = inner.weight, linear(inner.out_features, inner.in_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + self.added(x)


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


@torch.no_grad()
def in_place(module: Any) -> None:
    attention(module).v_proj.weight.mul_(-1)


def behind_its_back(module: Any) -> None:
    """No version counter sees what goes through `.data`, as when adapters are merged."""
    attention(module).o_proj.weight.data += 0.5


def one_number(module: Any) -> None:
    attention(module).v_proj.weight.data[7, 3] += 30


def rows_change_places(module: Any) -> None:
    weight = module.lm_head.weight.data
    weight[[3, 4]] = weight[[4, 3]].clone()


def one_step_of_an_optimiser(module: Any) -> None:
    module.requires_grad_(True)
    module(input_ids=torch.tensor([PROMPT]), labels=torch.tensor([PROMPT])).loss.backward()
    torch.optim.SGD(module.parameters(), lr=3.0).step()


def a_bias(module: Any) -> None:
    module.lm_head.bias = nn.Parameter(torch.arange(VOCAB).double() % 5)


def norms_weights(module: Any) -> None:
    module.model.norm.weight.data[::2] = -3


def the_embedding(module: Any) -> None:
    module.model.embed_tokens.weight.data = module.model.embed_tokens.weight.data.flip(0)


def a_hook(module: Any) -> None:
    module.model.layers[1].mlp.register_forward_hook(lambda _, __, out: -out)


def a_pre_hook(module: Any) -> None:
    module.model.norm.register_forward_pre_hook(lambda _, given: (given[0].flip(-1),))


def another_forward(module: Any) -> None:
    norm = module.model.layers[1].input_layernorm
    norm.forward = MethodType(lambda self, x: x, norm)


def frequencies(module: Any) -> None:
    module.model.rotary_emb.inv_freq.mul_(0.3)


def pruned(module: Any) -> None:
    prune.random_unstructured(attention(module).q_proj, "weight", 0.7)


def another_head(module: Any) -> None:
    attention(module).k_proj = Adapted(attention(module).k_proj)


def narrower(module: Any) -> None:
    """Where the weights lie stays the same."""
    mlp = module.model.layers[0].mlp
    for part in (mlp.up_proj, mlp.gate_proj):
        part.weight.data = part.weight.data[:20]
    mlp.down_proj.weight.data = mlp.down_proj.weight.data[:, :20]


def in_a_tensor(module: Any) -> None:
    attention(module).scaling = torch.tensor(0.1, dtype=torch.float64)


def more_tokens(module: Any) -> None:
    torch.manual_seed(0)
    module.resize_token_embeddings(VOCAB + 4, mean_resizing=False)


CHANGES: dict[str, Change] = {
    "values in place": in_place,
    "values through .data": behind_its_back,
    "one number through .data": one_number,
    "rows of the head change places": rows_change_places,
    "norms": norms_weights,
    "the embedding": the_embedding,
    "an optimiser's step": one_step_of_an_optimiser,
    "load_state_dict": lambda module: module.load_state_dict(llama(9).state_dict()),
    "load_state_dict by reference": lambda module: module.load_state_dict(llama(9).state_dict(), assign=True),
    "a parameter replaced": lambda module: setattr(attention(module).q_proj, "weight", linear(16, 16).weight),
    "a parameter's data replaced": lambda module: setattr(module.lm_head.weight, "data", linear(VOCAB, 16).weight),
    "a bias added": a_bias,
    "a submodule replaced": lambda module: setattr(module, "lm_head", linear(VOCAB, 16)),
    "a layer fewer": lambda module: setattr(module.model, "layers", module.model.layers[:1]),
    "an adapter": another_head,
    "a hook": a_hook,
    "a hook before": a_pre_hook,
    "a forward of its own": another_forward,
    "a parametrisation": lambda module: parametrize.register_parametrization(module.lm_head, "weight", Doubled()),
    "pruned": pruned,
    "a setting": lambda module: setattr(attention(module), "scaling", 0.1),
    "a setting in a tensor": in_a_tensor,
    "a narrower layer": narrower,
    "an epsilon": lambda module: setattr(module.model.norm, "variance_epsilon", 5.0),
    "frequencies": frequencies,
    "another dtype": lambda module: module.float(),
    "more tokens": more_tokens,
}  # fmt: skip


def first(model: sd.TransformersModel) -> torch.Tensor:
    """The distribution of a text's first token, with a drafter at work. -> [vocab]"""
    made = sd.speculative(model, sd.PromptLookupDrafter(), PROMPT, trace="full", **COMMON)
    return torch.tensor(made.trace.rounds[0].full_target[0], dtype=torch.float64)


def truth(module: Any) -> torch.Tensor:
    """The same, without cache or engine. -> [vocab]"""
    with torch.no_grad():
        return module(input_ids=torch.tensor([PROMPT]), use_cache=False).logits[0, -1].double().softmax(-1)


def text(model: sd.TransformersModel) -> list[int]:
    return sd.autoregressive(model, PROMPT, **COMMON).tokens


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return (one[:VOCAB] - other[:VOCAB]).abs().max().item()


REFUSED_BY_LEAN = {"an adapter", "a hook", "a hook before", "a forward of its own", "a parametrisation", "pruned"}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_module_decodes_as_it_is_now(change: str, engine: str) -> None:
    module = llama()
    model = sd.TransformersModel(module, engine=engine)
    before = first(model)
    CHANGES[change](module)
    module.eval()
    if engine == "lean" and change in REFUSED_BY_LEAN:
        with pytest.raises(ValueError, match="the lean engine runs Llama.*engine='eager' runs it"):
            first(model)
        return
    assert apart(first(model), truth(module)) < 1e-5
    assert text(model) == text(sd.TransformersModel(module))
    assert apart(before, truth(module)) > 1e-4 or change == "another dtype"  # else nothing was compared
    assert model.dtype == module.dtype


class Scaled(nn.Module):
    """A linear layer and two others, of which it adds some: as adapters keep their scales and which of them are on."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner, self.scales, self.on = inner, {"one": 1.0, "other": 1.0}, ["one"]
        size = inner.out_features, inner.in_features
        self.added = nn.ModuleDict({"one": linear(*size), "other": linear(*size)})
        self.added["other"].weight.data *= -1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + sum(self.scales[name] * self.added[name](x) for name in self.on)


@pytest.mark.parametrize("engine", ["eager", "graph"])
@pytest.mark.parametrize(
    "change", [lambda part: part.scales.update(one=3.0), lambda part: setattr(part, "on", ["other"])],
    ids=["a scale", "another"],
)  # fmt: skip
def test_what_an_adapter_keeps_in_lists_and_dicts_is_followed(change: Any, engine: str) -> None:
    """A recording holds the numbers with which it was made."""
    module = llama()
    attention(module).v_proj = Scaled(attention(module).v_proj)
    model = sd.TransformersModel(module.eval(), engine=engine)
    before = first(model)
    change(attention(module).v_proj)
    assert apart(first(model), truth(module)) < 1e-9 < 1e-3 < apart(before, truth(module))
    made = model.engine
    assert apart(first(model), truth(module)) < 1e-9 and model.engine is made


@pytest.mark.parametrize("engine", ["lean", "graph", "auto"])
def test_a_class_patched_after_loading_is_followed(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = llama()
    model = sd.TransformersModel(module, engine=engine)
    before = first(model)
    monkeypatch.setattr(type(module.model.norm), "forward", lambda self, x: self.weight * x)
    if engine == "lean":
        with pytest.raises(ValueError, match="engine='eager' runs it"):
            first(model)
        return
    assert apart(first(model), truth(module)) < 1e-9 < 1e-3 < apart(before, truth(module))


@pytest.mark.parametrize(
    "value",
    [Lock(), torch.arange(2), {"of": [torch.arange(2)]}, [Lock()]],
    ids=["lock", "tensor", "tensor inside", "lock inside"],
)
def test_a_configuration_may_hold_what_is_neither_copied_nor_compared(value: Any) -> None:
    module = llama()
    module.config.note = value
    model = sd.TransformersModel(module)
    made = model.engine
    assert text(model) == text(model) and model.engine is made


def test_end_tokens_are_followed() -> None:
    module = llama()
    model = sd.TransformersModel(module)
    free = text(model)
    assert len(free) == COMMON["max_new_tokens"]
    module.generation_config.eos_token_id = free[2]
    assert sd.autoregressive(model, PROMPT, **COMMON | dict(stop=None)).tokens == free[: free.index(free[2]) + 1]
    model.end_tokens = (free[0],)  # one's own stay
    assert sd.autoregressive(model, PROMPT, **COMMON | dict(stop=None)).tokens == free[:1]


def test_a_change_is_not_lost_where_the_digest_is_weakest() -> None:
    """The smallest number of the vector that weights are multiplied with would hide it in rounding."""
    weight = torch.randn(4, 4096, generator=torch.Generator().manual_seed(1))
    digest = Digest([weight])
    before = digest.take()
    weakest = digest.steps[0][1].abs().argmin()
    weight[2, weakest] += 1e-4
    assert (digest.take() != before).tolist() == [False, False, True, False]


@pytest.mark.parametrize("change", ["values in place", "one number through .data", "a parameter replaced", "a hook"])
def test_a_stale_engine_would_have_been_noticed(change: str) -> None:
    """The comparison above can fail: an engine that is never made again goes on with the old weights."""
    module = llama()
    model = sd.TransformersModel(module, engine="lean")
    model.watched = False
    CHANGES[change](module)
    assert apart(first(model), truth(module)) > 1e-3


@pytest.mark.parametrize("kind", ["float16 weights", "float32", "bfloat16"])
@pytest.mark.parametrize("change", ["values in place", "one number through .data"])
def test_packed_weights_are_packed_again(change: str, kind: str) -> None:
    """Large enough for every kernel that holds a packed copy."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=2048, hidden_size=512, intermediate_size=1024, num_hidden_layers=1, num_attention_heads=8,
        bos_token_id=None, eos_token_id=None, initializer_range=0.1,
    )  # fmt: skip
    torch.manual_seed(0)
    module = LlamaForCausalLM(config).eval()
    module = (
        module.half().float()
        if kind == "float16 weights"
        else module.to(torch.bfloat16 if kind == "bfloat16" else torch.float32)
    )
    model = sd.TransformersModel(module, engine="lean")
    before, rounding = first(model), 1e-3 if kind == "bfloat16" else 1e-6
    CHANGES[change](module)
    assert apart(first(model), truth(module)) < rounding
    assert apart(before, truth(module)) > 4 * rounding


@pytest.mark.parametrize("engine", ENGINES)
def test_what_did_not_change_is_not_made_again(engine: str) -> None:
    module = llama()
    module.config.note = object()  # equal to nothing but itself, as some quantisations' settings are
    model = sd.TransformersModel(module, engine=engine)
    made = model.engine
    for _ in range(2):
        sd.autoregressive(model, PROMPT, **COMMON)
        module(input_ids=torch.tensor([PROMPT]))
        module.generate(torch.tensor([PROMPT]), max_new_tokens=3, do_sample=False, pad_token_id=0)
        probe(model)
        module.train().eval()
        module(input_ids=torch.tensor([PROMPT]), labels=torch.tensor([PROMPT])).loss.backward()
        module.zero_grad()
        copy.deepcopy(module).load_state_dict(module.state_dict())
        pickle.dumps(module)
    assert model.engine is made


@pytest.mark.parametrize("engine", ENGINES)
def test_a_configuration_changed_is_read_again(engine: str) -> None:
    module = build("Mistral")
    module = copy.deepcopy(module)
    model = sd.TransformersModel(module, engine=engine)
    before = sd.autoregressive(model, PROMPT * 3, **COMMON).tokens
    module.config.sliding_window = 2
    found = sd.autoregressive(model, PROMPT * 3, **COMMON).tokens
    assert found == sd.autoregressive(sd.TransformersModel(module), PROMPT * 3, **COMMON).tokens != before


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "part", [lambda module: module, lambda module: module.model.layers[0].mlp], ids=["all", "a part"]
)
def test_training_mode_is_refused_when_a_text_begins(part: Any, engine: str) -> None:
    module = llama()
    model = sd.TransformersModel(module, engine=engine)
    part(module).train()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"LlamaForCausalLM.* is in training mode: call its .eval\(\) first"):
            sd.autoregressive(model, PROMPT, **COMMON)
    module.eval()
    assert text(model) == text(sd.TransformersModel(module))


def test_a_list_of_parts_may_stay_in_training_mode() -> None:
    """A new one is in it, and computes nothing of its own."""
    module = llama()
    right = text(sd.TransformersModel(module))
    module.model.layers = torch.nn.ModuleList(module.model.layers)
    assert module.model.layers.training
    assert text(sd.TransformersModel(module)) == right


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_that_every_forward_rewrites_are_refused(engine: str) -> None:
    module = llama()
    model = sd.TransformersModel(module, engine=engine)
    module.model.embed_tokens.max_norm = 0.1
    for begin in (lambda: text(model), lambda: sd.TransformersModel(module, engine=engine)):
        with pytest.raises(ValueError, match="model.embed_tokens has a max_norm, which rewrites weights"):
            begin()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["dynamic", "longrope"])
def test_the_scale_of_a_growing_rotary_module_is_followed(name: str, engine: str) -> None:
    module = scaled(name)
    model = sd.TransformersModel(module, engine=engine)
    before, first = text(model), model.engine
    assert text(model) == before and model.engine is first
    module.model.rotary_emb.attention_scaling = 8.0
    assert text(model) == text(sd.TransformersModel(module)) != before


def begun(model: sd.TransformersModel) -> Iterator[Any]:
    rounds = sd.stream(model, sd.PromptLookupDrafter(), PROMPT, **COMMON)
    next(rounds)
    return rounds


@pytest.mark.parametrize("engine", ENGINES)
def test_a_change_in_the_middle_of_a_text_is_told(engine: str) -> None:
    module = llama()
    model = sd.TransformersModel(module, engine=engine)
    rounds = begun(model)
    in_place(module)
    with pytest.raises(RuntimeError, match="was changed while a text was being decoded.*begin the text again"):
        list(rounds)
    rounds = begun(model)  # a new one begins with the new weights, and an old one does not go on with them
    CHANGES["a parameter replaced"](module)
    other = begun(model)
    with pytest.raises(RuntimeError, match="was changed while a text was being decoded"):
        list(rounds)
    list(other)


def test_a_draft_changed_after_loading_drafts_as_it_is_now() -> None:
    target, draft = llama(), noisy(llama(), 0.9)
    models = sd.TransformersModel(target, engine="lean"), sd.TransformersModel(draft, engine="lean")
    poor = sd.speculative(models[0], sd.ModelDrafter(models[1]), PROMPT, sampling=GREEDY, **COMMON)
    draft.load_state_dict(target.state_dict())
    good = sd.speculative(models[0], sd.ModelDrafter(models[1]), PROMPT, sampling=GREEDY, **COMMON)
    assert good.tokens == poor.tokens
    assert len(good.trace.rounds) < len(poor.trace.rounds)
    assert all(each.accepted == len(each.drafted) for each in good.trace.rounds)


# The module is left alone


@pytest.mark.parametrize("engine", ENGINES)
def test_safetensors_write_a_loaded_module(engine: str, tmp_path: Path) -> None:
    from safetensors.torch import load_model, save_model

    module = llama()
    before = {name: (weight.data_ptr(), weight.clone()) for name, weight in module.state_dict().items()}
    sd.load_pair(module, module, engine=engine)
    save_model(module, str(tmp_path / "weights"))
    again = llama(3)
    load_model(again, str(tmp_path / "weights"))
    for name, weight in module.state_dict().items():
        assert weight.data_ptr() == before[name][0]
        assert torch.equal(weight, before[name][1]) and torch.equal(again.state_dict()[name], weight)


@pytest.mark.parametrize("engine", ENGINES)
def test_pairs_and_drafters_are_pickled_and_copied(engine: str) -> None:
    pair = sd.load_pair(llama(), noisy(llama(), 0.1), engine=engine)
    drafter = sd.ModelDrafter(pair.draft)
    right = sd.speculative(pair.target, drafter, PROMPT, **COMMON)
    sent = pickle.loads(pickle.dumps((pair, drafter, sd.PromptLookupDrafter())))
    for twin, theirs in (sent[:2], copy.deepcopy((pair, drafter))):
        assert theirs.model is twin.draft is not pair.draft
        again = sd.speculative(twin.target, theirs, PROMPT, **COMMON)
        assert again.tokens == right.tokens
        assert twin.target.engine.name == pair.target.engine.name


# Surroundings


@pytest.mark.parametrize("engine", ENGINES)
def test_inside_autocast_all_is_as_outside(engine: str) -> None:
    module = llama().float()
    model = sd.TransformersModel(module, engine=engine)
    right = sd.speculative(model, sd.ModelDrafter(model), PROMPT, trace="full", **COMMON)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(input_ids=torch.tensor([PROMPT])).logits.dtype == torch.bfloat16  # else nothing is compared
        found = sd.speculative(model, sd.ModelDrafter(model), PROMPT, trace="full", **COMMON)
        assert [each.full_target for each in found.trace.rounds] == [each.full_target for each in right.trace.rounds]
        made = sd.load_pair(module, module, engine=engine)  # it is probed, too
        assert (
            sd.autoregressive(made.target, PROMPT, **COMMON).tokens == sd.autoregressive(model, PROMPT, **COMMON).tokens
        )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("default", ["dtype", "device"])
def test_defaults_for_new_tensors_change_nothing(default: str, engine: str) -> None:
    module = llama().float()
    model = sd.TransformersModel(module, engine=engine)
    right = text(model)
    try:
        torch.set_default_dtype(torch.float64) if default == "dtype" else torch.set_default_device("meta")
        assert text(model) == right
        assert text(sd.load_pair(module, module, engine=engine).target) == right
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def test_what_the_configuration_says_is_read_before_a_prompt_is_checked() -> None:
    module = llama(context=40)
    model = sd.TransformersModel(module)
    drafter = sd.ModelDrafter(sd.TransformersModel(noisy(module, 0.1)))
    with pytest.raises(ValueError, match="40"):
        sd.autoregressive(model, PROMPT, max_new_tokens=60)
    module.config.max_position_embeddings = 100
    more_tokens(module)
    module.generation_config.eos_token_id = None
    made = sd.speculative(model, drafter, [VOCAB + 2, *PROMPT], max_new_tokens=60, stop=sd.Stop())
    assert len(made.tokens) == 60
    drafter.model.module.float()  # a draft may be of another dtype
    assert sd.speculative(model, drafter, PROMPT, **COMMON).tokens


@pytest.mark.gpu
def test_a_module_moved_to_another_device_decodes_there() -> None:
    module = llama().float()
    model = sd.TransformersModel(module, engine="auto")
    right = text(model)
    module.to("cuda")
    assert text(model) == right
    assert model.device.type == "cuda" and model.engine.name == "graph"
    with pytest.raises(ValueError, match="the draft is on cpu and the target on cuda"):
        sd.speculative(model, sd.ModelDrafter(sd.TransformersModel(llama())), PROMPT, **COMMON)
