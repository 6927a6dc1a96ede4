"""Models behind the cache equal models without a cache, and those that cannot are refused."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, make
from tiny import PROMPT, VOCAB, Counted, given_cache, llama, next_logits, noisy, pair, tokenizer

import specdec_lite as sd
from specdec_lite.engines.architecture import cache_name
from specdec_lite.loading.probe import probe
from specdec_lite.models import prefill


def test_only_the_last_logits_when_asked() -> None:
    for model in (pair()[0], sd.TableModel(VOCAB)):
        tokens = torch.tensor([PROMPT, PROMPT[::-1]])
        with torch.inference_mode():
            every = model.forward(tokens, model.new_cache(2, 8))
            last = model.forward(tokens, model.new_cache(2, 8), last_only=True)
        assert every.shape == (2, len(PROMPT), VOCAB)
        assert last.shape == (2, 1, VOCAB)
        torch.testing.assert_close(every[:, -1:], last, rtol=0, atol=1e-13)


@torch.inference_mode()
@pytest.mark.parametrize("texts", [[[1, 2, 3, 4], [5], [6, 7]], [[1, 2, 3]], [[4, 4], [3, 3]]], ids=str)
def test_prefill_is_one_forward_over_all_but_the_last_token(texts: list[list[int]]) -> None:
    model = Counted(pair()[0])
    cache = model.new_cache(len(texts), 10)
    prefill(model, cache, texts)
    assert model.widths == [max(map(len, texts)) - 1]
    assert cache.lengths == [len(text) - 1 for text in texts]
    logits = model.forward(torch.tensor([text[-1:] for text in texts]), cache)
    for row, text in enumerate(texts):
        torch.testing.assert_close(logits[row, 0], next_logits(model.model, text), rtol=0, atol=1e-12)


def test_prompts_of_one_token_need_no_prefill() -> None:
    model = Counted(pair()[0])
    cache = model.new_cache(2, 10)
    prefill(model, cache, [[1], [2]])
    assert model.widths == []
    assert cache.lengths == [0, 0]


@torch.inference_mode()
def test_padding_may_lie_beyond_the_last_position() -> None:
    """One row near the end of a model's context, another short: a wide block reaches past the table of positions."""
    model = sd.TransformersModel(make("GPT2", ARCHITECTURES["GPT2"] | dict(n_positions=16)))
    texts, held = [list(range(14)), [3, 1]], [14, 2]
    cache = model.new_cache(2, 20)
    prefill(model, cache, [[*text, 0] for text in texts])
    block = torch.tensor([[5, 6, 0, 0], [7, 8, 9, 10]])  # [2, 4], two real ones in the first row
    logits = model.forward(block, cache)
    assert cache.lengths == [n + 4 for n in held]
    for row, real in ((0, 2), (1, 4)):
        truth = next_logits(model, texts[row] + block[row, :real].tolist())
        torch.testing.assert_close(logits[row, real - 1], truth, rtol=0, atol=1e-12)


def test_what_a_model_is_read_from_its_configuration() -> None:
    module = llama(context=99)
    model = sd.TransformersModel(module)
    assert (model.vocab_size, model.context, model.layers, model.dtype) == (VOCAB, 99, 2, torch.float64)
    assert model.device == torch.device("cpu")
    assert model.parameters == sum(p.numel() for p in module.parameters())
    tied = sd.TransformersModel(make("GPT2", ARCHITECTURES["GPT2"] | dict(tie_word_embeddings=True)))
    assert tied.parameters == sum(p.numel() for name, p in tied.module.named_parameters() if name != "lm_head.weight")


def test_end_tokens_come_from_the_generation_config_first() -> None:
    module = llama()
    assert sd.TransformersModel(module).end_tokens == ()
    module.config.eos_token_id = 3
    assert sd.TransformersModel(module).end_tokens == (3,)
    module.generation_config.eos_token_id = [4, 0]
    assert sd.TransformersModel(module).end_tokens == (4, 0)


def test_a_model_in_training_mode_is_refused() -> None:
    module = llama().train()
    with pytest.raises(ValueError, match=r"training mode.*\.eval\(\)"):
        sd.TransformersModel(module)
    assert module.training


# The table model


def test_a_table_model_adds_a_row_for_each_token_shown() -> None:
    model = sd.TableModel(5, context=12, seed=3)
    text, cache = [1, 4, 0, 2, 2, 3], model.new_cache(1, 12)
    logits = torch.cat([model.forward(torch.tensor([part]), cache) for part in (text[:2], text[2:5], text[5:])], 1)
    for n in range(1, 7):
        torch.testing.assert_close(logits[0, n - 1], next_logits(model, text[:n]), rtol=0, atol=1e-14)


def test_a_table_model_sees_only_the_arena() -> None:
    model = sd.TableModel(5, context=12)
    caches = [model.new_cache(1, 12) for _ in range(3)]
    for cache in caches:
        model.forward(torch.tensor([[1, 2, 3, 4]]), cache)
        cache.rewind([1])
    caches[1].layers[0][0][0, :, 3:] = 2  # stale: no influence
    caches[2].layers[0][0][0, :, 1] = 0  # the second token was 2
    first, stale, changed = (model.forward(torch.tensor([[0]]), cache) for cache in caches)
    assert torch.equal(first, stale)
    assert not torch.equal(first, changed)


def test_a_rewind_of_one_too_few_changes_a_table_models_answer() -> None:
    model = sd.TableModel(5, context=12)
    right, wrong = model.new_cache(1, 12), model.new_cache(1, 12)
    for cache, forget in ((right, 2), (wrong, 1)):
        model.forward(torch.tensor([[1, 2, 3, 4]]), cache)
        cache.rewind([forget])
    assert not torch.equal(*(model.forward(torch.tensor([[0]]), cache) for cache in (right, wrong)))


def test_sharpness_zero_is_uniform() -> None:
    logits = (model := sd.TableModel(4, sharpness=0)).forward(torch.tensor([[1, 2]]), model.new_cache(1, 4))
    assert (logits == 0).all()


# The probe


def changed(change: Any, dtype: torch.dtype = torch.float64) -> sd.TransformersModel:
    """A tiny Llama whose forward first goes through `change(its arguments)`."""
    module = llama().to(dtype)
    plain = module.forward
    module.forward = lambda **kwargs: plain(**change(kwargs))
    return sd.TransformersModel(module)


def ignores_the_mask(kwargs: dict) -> dict:
    if kwargs.get("attention_mask") is None:
        return kwargs
    return kwargs | dict(attention_mask=kwargs["attention_mask"].clamp_min(-1e-3))


def ignores_the_positions(kwargs: dict) -> dict:
    """Counts on from the cache's longest row, as a model does that asks for no positions."""
    if kwargs.get("position_ids") is None:
        return kwargs
    begin, n = given_cache(kwargs).get_seq_length(), kwargs["input_ids"].shape[1]
    return kwargs | dict(position_ids=torch.arange(begin, begin + n).expand(2, n))


class Remembers:
    """Keeps state of its own: how many tokens it has been fed with a cache."""

    fed = 0

    def __call__(self, kwargs: dict) -> dict:
        if kwargs.get("position_ids") is None:
            return kwargs
        begin = self.fed if given_cache(kwargs).get_seq_length() else 0
        self.fed = begin + kwargs["input_ids"].shape[1]
        return kwargs | dict(position_ids=torch.arange(begin, self.fed).expand(2, -1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("change", "way"), [(ignores_the_mask, "cached"), (ignores_the_positions, "ragged"), (Remembers(), "rewound")]
)
def test_the_probe_says_in_which_way_a_model_parts(change: Any, way: str, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=rf"the draft \(LlamaForCausalLM\) gives other logits in a {way} forward"):
        probe(changed(change, dtype), "draft")


def test_the_probe_passes_a_sound_model() -> None:
    probe(pair()[0])
    probe(changed(lambda kwargs: kwargs))
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        probe(sd.TransformersModel(llama().to(dtype)))


class Reroutes:
    """Gives other logits with a cache where `off(width, text)`, as experts do that rounding has chosen."""

    def __init__(self, dtype: torch.dtype, off: Any) -> None:
        self.module, self.off, self.text = llama().to(dtype), off, 0
        self.plain, self.module.forward = self.module.forward, self.forward

    def forward(self, **kwargs: Any) -> Any:
        out = self.plain(**kwargs)
        self.text += given_cache(kwargs) is None  # each text begins with a forward without a cache
        if given_cache(kwargs):
            out.logits[:, self.off(out.logits.shape[1], self.text)] *= -1
        return out


@pytest.mark.parametrize("off", [
    lambda width, text: [0] if width > 1 else [],  # a token here and there
    lambda width, text: slice(0, width if text < 3 else 0),  # everything, in the first two texts
], ids=["token", "texts"])  # fmt: skip
def test_in_half_precision_the_probe_forgives_what_is_not_always_so(off: Any) -> None:
    probe(sd.TransformersModel(Reroutes(torch.bfloat16, off).module))
    with pytest.raises(ValueError, match="cached"):
        probe(sd.TransformersModel(Reroutes(torch.float32, off).module))


def test_the_probe_changes_nothing_in_the_model() -> None:
    module = make("Gemma3", ARCHITECTURES["Gemma3"] | dict(sliding_window=40))
    model, config = sd.TransformersModel(module), copy.deepcopy(module.config)
    probe(model)
    assert model.windows == {"full_attention": None, "sliding_attention": 40}
    model.windows = dict.fromkeys(model.windows)
    with pytest.raises(ValueError, match="cached"):
        probe(model)
    assert module.config.to_dict() == config.to_dict()
    assert set(model.windows.values()) == {None}


@pytest.mark.parametrize("window", [8, 4096])
def test_the_probe_sees_a_window_of_any_size(window: int) -> None:
    """transformers follows `sliding_window` here; a mask without it parts, though the probe's text is short."""
    model = sd.TransformersModel(make("Mistral", ARCHITECTURES["Mistral"] | dict(sliding_window=window)))
    probe(model)
    for wrong in ({"full_attention": None}, {"sliding_attention": window and 4}):
        model.windows = wrong
        with pytest.raises(ValueError, match="another window"):
            probe(model)


def test_the_probe_sees_a_model_that_counts_slots() -> None:
    """GPT-Neo hides what lies `window_size` slots before the last slot, be a token there or not."""
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    config = GPTNeoConfig(
        vocab_size=VOCAB, hidden_size=16, num_layers=2, num_heads=2, attention_types=[[["global", "local"], 1]],
        window_size=256, max_position_embeddings=1024, initializer_range=0.3,
    )  # fmt: skip
    with pytest.raises(ValueError, match="roomy.*slots without a token reach it"):
        probe(sd.TransformersModel(GPTNeoForCausalLM(config).double().eval()))


def test_the_probe_refuses_what_cannot_be_compared() -> None:
    module = llama()
    with torch.no_grad():
        module.lm_head.weight[3] = float("inf")
    with pytest.raises(ValueError, match="not finite in torch.float64"):
        probe(sd.TransformersModel(module))
    model = sd.TransformersModel(llama())
    model.vocab_size = 30
    with pytest.raises(ValueError, match=f"gives {VOCAB} logits a token.*vocab_size=30"):
        probe(model)
    with pytest.raises(ValueError, match=r"the draft \(LlamaModel\) gives no logits for token ids alone"):
        probe(sd.TransformersModel(llama().model), "draft")
    with pytest.raises(ValueError, match="does not run .* in a cached forward: RuntimeError: no mask, please"):
        probe(changed(refuses_masks))


def refuses_masks(kwargs: dict) -> dict:
    if kwargs.get("attention_mask") is not None:
        raise RuntimeError("no mask, please")
    return kwargs


# Loading


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A target with its tokenizer and a draft, saved by transformers."""
    where = tmp_path_factory.mktemp("pair")
    target = llama()
    target.generation_config.eos_token_id = 0
    target.save_pretrained(where / "target")
    tokenizer().save_pretrained(where / "target")
    noisy(target, 0.1).save_pretrained(where / "draft")
    return where / "target", where / "draft"


def test_a_pair_loads_from_folders_and_decodes(folders: tuple[Path, Path]) -> None:
    loaded = sd.load_pair(*folders, dtype="float64")
    assert loaded.target.dtype == loaded.draft.dtype == torch.float64
    assert loaded.tokenizer is loaded.target.tokenizer is loaded.draft.tokenizer
    assert loaded.target.end_tokens == (0,)
    assert not loaded.target.module.training
    assert re.fullmatch(
        r"Pair\(0\.0 M and 0\.0 M weights, 2 and 2 layers, torch\.float64, cpu, lean engine\)", repr(loaded)
    )
    made = sd.speculative(loaded.target, sd.ModelDrafter(loaded.draft), "ab", max_new_tokens=9, stop=sd.Stop())
    direct = sd.speculative(pair()[0], sd.ModelDrafter(pair()[1]), tokenizer().encode("ab"), max_new_tokens=9)
    assert made.tokens == direct.tokens
    assert made.text == tokenizer().decode(made.tokens, skip_special_tokens=True)


def test_names_objects_and_dtypes_mix(folders: tuple[Path, Path]) -> None:
    assert sd.load_pair(*map(str, folders)).draft.dtype == torch.float32  # the default on a CPU
    module = llama().float()
    loaded = sd.load_pair(module, folders[1], dtype=torch.float32)
    assert loaded.target.module is module
    assert loaded.tokenizer is None
    assert sd.load_pair(module, module, tokenizer=tokenizer()).tokenizer is tokenizer()
    assert sd.load_pair(folders[0], folders[1], dtype=torch.bfloat16).target.dtype == torch.bfloat16


def test_loading_leaves_objects_as_they_were() -> None:
    module = llama()
    config, weights = copy.deepcopy(module.config), copy.deepcopy(module.state_dict())
    names = set(vars(module))
    sd.load_pair(module, module)
    assert module.config.to_dict() == config.to_dict()
    assert set(vars(module)) == names
    assert all(torch.equal(weights[name], weight) for name, weight in module.state_dict().items())


def test_half_a_pair_is_refused(folders: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match="a draft needs a target: give both, or neither"):
        sd.load_pair(draft=folders[1])
    with pytest.raises(ValueError, match="draft_revision='main' belongs to a draft, and none was given"):
        sd.load_pair(folders[0], draft_revision="main")


def test_a_target_alone_is_drafted_for_by_the_text_itself(folders: tuple[Path, Path]) -> None:
    alone, both = sd.load_pair(folders[0], dtype="float64"), sd.load_pair(*folders, dtype="float64")
    assert alone.draft is None and alone.models == {"target": alone.target}
    assert repr(alone) == "Pair(0.0 M weights, 2 layers, torch.float64, cpu, lean engine, no draft)"
    common = dict(max_new_tokens=20, sampling=sd.Sampling(temperature=0), stop=sd.Stop())
    made = sd.speculative(alone.target, sd.PromptLookupDrafter(), "abab", **common)
    assert made.tokens == sd.autoregressive(both.target, "abab", **common).tokens
    with pytest.raises(
        TypeError, match=r"ModelDrafter needs a model.*got None; PromptLookupDrafter\(\) drafts without"
    ):
        sd.ModelDrafter(alone.draft)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({}, r"must be a hub id, a local folder, random: and a shape, or a model of transformers, got \{\}"),
        (torch.nn.Linear(2, 2), "must be a hub id.*got a Linear$"),
        (sd.TransformersModel, "must be a hub id.*got <class"),
        (3, "must be a hub id.*got 3"),
        (torch.zeros(300, 300), r"must be a hub id.*got tensor\([^\n]{,80}\.\.\.$"),
    ],
    ids=["a dict", "another module", "a class", "a number", "a tensor"],
)
def test_what_is_no_model_is_told(source: Any, told: str) -> None:
    for role, given in (("target", (source, llama())), ("draft", (llama(), source))):
        with pytest.raises(TypeError, match=f"^the {role} {told}") as error:
            sd.load_pair(*given)
        assert len(str(error.value)) < 200 and "\n" not in str(error.value)


def test_a_model_that_is_loaded_already_is_told() -> None:
    with pytest.raises(TypeError, match="the target is a TransformersModel already.*give its .module"):
        sd.load_pair(pair()[0], llama())
    with pytest.raises(TypeError, match="module is a TransformersModel already"):
        sd.TransformersModel(pair()[0])
    with pytest.raises(TypeError, match="module must be a causal language model of transformers, got None"):
        sd.TransformersModel(None)


@pytest.mark.parametrize("engine", ["eager", "lean", "graph"])
def test_ids_that_are_switched_off_are_no_fault(engine: str) -> None:
    """A padded vocabulary whose bias says that no text has those ids."""
    module = llama()
    module.lm_head.bias = torch.nn.Parameter(torch.zeros(VOCAB).double())
    module.lm_head.bias.data[30:] = -torch.inf
    loaded = sd.load_pair(module, noisy(llama(), 0.1), engine=engine)
    common = dict(max_new_tokens=30, seed=2, stop=sd.Stop())
    for made in (
        sd.autoregressive(loaded.target, PROMPT, **common),
        sd.speculative(loaded.target, sd.ModelDrafter(loaded.draft), PROMPT, trace="full", **common),
    ):
        assert max(made.tokens) < 30
    for probs in made.trace.rounds[0].full_target:
        assert sum(probs) == pytest.approx(1) and not any(probs[30:])


def test_ids_that_are_switched_off_here_and_there_are_a_fault() -> None:
    class Wavers(torch.nn.Module):
        def __init__(self, module: Any) -> None:
            super().__init__()
            self.plain = module.forward
            module.forward = self.forward

        def forward(self, **kwargs: Any) -> Any:
            out = self.plain(**kwargs)
            out.logits[..., 30:] = -torch.inf if given_cache(kwargs) is None else -9.0
            return out

    module = llama()
    Wavers(module)
    with pytest.raises(ValueError, match="other logits in a cached forward"):
        probe(sd.TransformersModel(module))


def test_two_vocabularies_are_refused() -> None:
    with pytest.raises(ValueError, match=rf"{VOCAB} entries and the draft's 40.*one tokenizer"):
        sd.load_pair(llama(), llama(vocab=40))


def test_a_model_in_training_mode_makes_no_pair() -> None:
    with pytest.raises(ValueError, match="training mode"):
        sd.load_pair(llama(), llama().train())


def test_a_model_is_given_its_cache_under_the_name_that_it_has() -> None:
    class Older(type(llama())):
        def forward(self, input_ids: Any = None, past_key_values: Any = None, **kwargs: Any) -> Any:
            given = {cache_name(llama()): past_key_values}
            return super().forward(input_ids=input_ids, **given, **kwargs)

    module = Older(llama().config).double().eval()
    module.load_state_dict(llama().state_dict())
    assert cache_name(module) == "past_key_values"
    model = sd.TransformersModel(module)
    probe(model)
    common = dict(max_new_tokens=12, sampling=sd.Sampling(0))
    assert sd.autoregressive(model, [5, 1], **common).tokens == sd.autoregressive(pair()[0], [5, 1], **common).tokens
