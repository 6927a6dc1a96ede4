"""Models that cannot be decoded exactly are refused by what they say of themselves, before any forward."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, BASE, build, make
from tiny import VOCAB, Counted, next_logits, noisy

import specdec_lite as sd
from specdec_lite.engines.architecture import reach

SMALL = {name: BASE[name] for name in BASE if name not in ("initializer_range", "max_position_embeddings")}
LINEAR = SMALL | dict(layer_types=["linear_attention", "full_attention"])
SEQ2SEQ = dict(vocab_size=VOCAB, d_model=16, encoder_layers=1, decoder_layers=1)
REFUSED = {
    "BartForConditionalGeneration": (SEQ2SEQ, "encoder-decoder"),
    "T5ForConditionalGeneration": (dict(vocab_size=VOCAB, d_model=16, num_layers=1, d_ff=16), "encoder-decoder"),
    "MambaForCausalLM": (dict(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1), "recurrent"),
    "RwkvForCausalLM": (dict(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1), "recurrent"),
    "RecurrentGemmaForCausalLM": (SMALL, "recurrent"),
    "JambaForCausalLM": (SMALL, "recurrent"),
    "FalconH1ForCausalLM": (SMALL, "recurrent (layers of the kind 'hybrid')"),
    "NemotronHForCausalLM": (dict(vocab_size=VOCAB), "recurrent"),
    "Qwen3NextForCausalLM": (LINEAR, "recurrent (layers of the kind 'linear_attention')"),
    "MiniMaxForCausalLM": (LINEAR, "(layers of the kind 'linear_attention')"),
    "Lfm2ForCausalLM": (SMALL | dict(layer_types=["conv", "full_attention"]), "(layers of the kind 'conv')"),
    "Llama4ForCausalLM": (SMALL | dict(layer_types=["chunked_attention"] * 2), "full and sliding attention"),
    "DeepseekV32ForCausalLM": (SMALL, "full and sliding attention (layers of the kind '"),  # its name varies
    "BloomForCausalLM": (dict(vocab_size=VOCAB, hidden_size=16, n_layer=1, n_head=2), "ALiBi"),
    "MptForCausalLM": (dict(vocab_size=VOCAB, d_model=16, n_layers=1, n_heads=2), "ALiBi"),
    "FalconForCausalLM": (ARCHITECTURES["Falcon"] | dict(alibi=True), "ALiBi"),
    "BigBirdForCausalLM": (
        dict(vocab_size=VOCAB, hidden_size=24, num_hidden_layers=1),
        "changes with the text's length",
    ),
    "BartForCausalLM": (SEQ2SEQ, "no position for each token"),
    "OpenAIGPTLMHeadModel": (dict(vocab_size=VOCAB, n_embd=16, n_layer=1, n_head=2), "no cache of keys and values"),
}
CONFIGS = {"Llama4ForCausalLM": "Llama4TextConfig", "OpenAIGPTLMHeadModel": "OpenAIGPTConfig"}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_cause(name: str) -> None:
    import transformers

    config, cause = REFUSED[name]
    stem = name.removesuffix("ForCausalLM").removesuffix("ForConditionalGeneration")
    with torch.device("meta"):  # weights without data: whatever ran a forward would fail with another error
        module = getattr(transformers, name)(getattr(transformers, CONFIGS.get(name, f"{stem}Config"))(**config))
    with pytest.raises(ValueError, match=rf"^{name} cannot be decoded here: .*{re.escape(cause)}.*; take a decoder"):
        sd.load_pair(module.eval(), module, probe=False)


@pytest.mark.parametrize("window", [None, 0])
def test_sliding_layers_without_a_window_are_refused(window: int | None) -> None:
    module = make("Gemma3", ARCHITECTURES["Gemma3"])
    module.config.sliding_window = window
    with pytest.raises(ValueError, match=f"sliding_window is {window}"):
        sd.TransformersModel(module)


@pytest.mark.parametrize("attention", ["flash_attention_2", "flex_attention", "paged|sdpa"])
def test_an_attention_without_masks_is_refused(attention: str) -> None:
    module = make("Llama", BASE)
    module.config._attn_implementation_internal = attention  # asking for it would load a package that is not there
    with pytest.raises(ValueError, match=rf"attention {re.escape(repr(attention))} takes no mask.*='sdpa'"):
        sd.TransformersModel(module)


# Rotary scalings that look at the longest position

DYNAMIC = dict(rope_type="dynamic", factor=4.0, rope_theta=10000.0)
LONG = dict(rope_type="longrope", short_factor=[1.0, 1.0], long_factor=[3.0, 9.0], rope_theta=10000.0)
BOUND = 24
CHANGING = {
    "dynamic": ("Llama", dict(rope_parameters=DYNAMIC, max_position_embeddings=BOUND)),
    "longrope": ("Phi3", dict(rope_parameters=LONG, original_max_position_embeddings=BOUND, sliding_window=None)),
    "dynamic, in layers of one kind": (
        "Gemma3",
        dict(
            rope_parameters=dict(full_attention=DYNAMIC, sliding_attention=DYNAMIC | dict(rope_type="default")),
            max_position_embeddings=BOUND,
        ),
    ),
}


def scaled(which: str) -> Any:
    name, changes = CHANGING[which]
    return make(name, ARCHITECTURES[name] | changes)


@pytest.mark.parametrize("which", CHANGING)
def test_a_changing_scaling_is_used_up_to_its_boundary(which: str) -> None:
    module = scaled(which)
    target = sd.TransformersModel(module)
    assert target.context == BOUND
    assert f"{which.split(',')[0]!r}" in target.context_reason
    assert f"beyond {BOUND} tokens" in target.context_reason
    prompts = [[5, 1, 7, 7, 2], [3, 9, 4, 4, 30, 12, 8, 0]]
    common = dict(k=4, sampling=sd.Sampling(temperature=0), stop=sd.Stop())
    draft = sd.ModelDrafter(sd.TransformersModel(noisy(module, 0.05)))
    for prompt in prompts:
        ids = torch.tensor([prompt])
        made = module.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=16)
        truth = made[0, len(prompt) :].tolist()
        assert sd.speculative(target, draft, prompt, max_new_tokens=16, **common).tokens == truth
    assert sd.speculative(target, draft, prompts, max_new_tokens=16, **common).tokens[1] == truth  # to the last slot


@pytest.mark.parametrize("which", CHANGING)
def test_a_text_beyond_the_boundary_is_refused_before_any_forward(which: str) -> None:
    target = Counted(sd.TransformersModel(scaled(which)))
    draft = Counted(target.model)
    for run in (
        lambda: sd.autoregressive(target, [1] * 8, max_new_tokens=17),
        lambda: sd.speculative(target, sd.ModelDrafter(draft), [1] * 8, max_new_tokens=17),
    ):
        with pytest.raises(ValueError, match=rf"context is {BOUND} \(the rotary scaling"):
            run()
    assert target.widths == draft.widths == []


@torch.inference_mode()
@pytest.mark.parametrize("which", CHANGING)
def test_beyond_the_boundary_a_cache_would_be_wrong(which: str) -> None:
    model = sd.TransformersModel(scaled(which))
    text = [(3 * i * i + 5 * i) % VOCAB for i in range(BOUND + 4)]
    model.context = None
    for n, near in ((BOUND, True), (BOUND + 4, False)):
        cache = model.new_cache(1, 40)
        model.forward(torch.tensor([text[: n - 4]]), cache)
        got = model.forward(torch.tensor([text[n - 4 : n]]), cache)[0, -1]
        assert torch.allclose(got, next_logits(model, text[:n]), rtol=0, atol=1e-10) == near


def test_a_draft_with_such_a_scaling_drafts_up_to_its_boundary() -> None:
    target = sd.TransformersModel(build("Llama"))
    draft = sd.ModelDrafter(sd.TransformersModel(scaled("dynamic")))
    common = dict(max_new_tokens=40, sampling=sd.Sampling(temperature=0), stop=sd.Stop())
    made = sd.speculative(target, draft, [5, 1, 7], k=4, **common)
    assert made.tokens == sd.autoregressive(target, [5, 1, 7], **common).tokens
    ends = [each.position + len(each.drafted) for each in made.trace.rounds if each.drafted]
    assert BOUND - 4 <= max(ends) <= BOUND


@pytest.mark.parametrize(
    "scaling",
    [
        dict(rope_type="linear", factor=2.0),
        dict(rope_type="yarn", factor=2.0, original_max_position_embeddings=48),
        dict(rope_type="llama3", factor=2.0, original_max_position_embeddings=48, low_freq_factor=1.0,
             high_freq_factor=4.0),
    ],
    ids=lambda scaling: scaling["rope_type"],
)  # fmt: skip
def test_a_scaling_that_is_the_same_everywhere_sets_no_boundary(scaling: dict[str, Any]) -> None:
    model = sd.TransformersModel(make("Llama", BASE | dict(rope_parameters=scaling | dict(rope_theta=10000.0))))
    assert (model.context, model.context_reason) == (96, None)


def test_a_model_that_chooses_its_keys_in_long_texts_is_used_while_it_does_not() -> None:
    from transformers import DogeConfig

    context, reason = reach(DogeConfig(**SMALL, keep_window_size=20, max_position_embeddings=96))
    assert context == 20
    assert "beyond 20 tokens it attends to keys that it chooses" in reason


def test_the_dynamic_scaling_of_transformers_begins_at_the_longest_text_configured() -> None:
    from transformers import LlamaConfig

    scaling = DYNAMIC | dict(original_max_position_embeddings=8)  # transformers does not look at it
    assert reach(LlamaConfig(**SMALL, rope_parameters=scaling, max_position_embeddings=BOUND))[0] == BOUND
