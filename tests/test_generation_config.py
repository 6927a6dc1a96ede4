"""A model's generation_config: used as generate() uses it, or told of."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from tiny import PROMPT, llama, next_logits, noisy
from transformers import GenerationConfig, LogitsProcessorList

import specdec_lite as sd

COMMON = dict(max_new_tokens=14, stop=sd.Stop())
GREEDY: dict[str, dict[str, Any]] = {
    "plain": {},
    "repetition_penalty": dict(repetition_penalty=1.5),
    "suppress_tokens": dict(suppress_tokens=[7, 3, 12]),
    "both": dict(repetition_penalty=1.5, suppress_tokens=[1, 2, 3]),
    "no_repeat_ngram_size": dict(no_repeat_ngram_size=2),
    "bad_words_ids": dict(bad_words_ids=[[7, 3], [12]]),
    "sequence_bias": dict(sequence_bias={(7,): -30.0, (3,): 5.0}),
    "begin_suppress_tokens": dict(begin_suppress_tokens=[12, 1]),
    "min_new_tokens": dict(min_new_tokens=9, eos_token_id=12),
    "min_new_tokens of one": dict(min_new_tokens=1, eos_token_id=7),
    "min_length": dict(min_length=12, eos_token_id=12),
    "forced_eos_token_id": dict(forced_eos_token_id=9),
    "a decaying length": dict(exponential_decay_length_penalty=(3, 1.3), eos_token_id=9),
    "sampling settings that greedy leaves alone": dict(temperature=0.3, top_k=3),
}
SAMPLED: dict[str, dict[str, Any]] = {
    "do_sample alone": {},
    "temperature": dict(temperature=0.7),
    "top_k": dict(top_k=4),
    "top_k off": dict(top_k=0),
    "top_p": dict(top_p=0.8, top_k=0),
    "min_p": dict(min_p=0.1),
    "several": dict(temperature=1.4, top_k=9, top_p=0.9, min_p=0.02, repetition_penalty=1.3, suppress_tokens=[7]),
    "typical_p": dict(typical_p=0.7, temperature=1.3),
    "epsilon and eta": dict(epsilon_cutoff=0.02, eta_cutoff=0.03, temperature=1.3, top_k=20),
    "top_h": dict(top_h=0.5, top_k=7),
}


def configured(settings: dict[str, Any], seed: int = 0, **more: Any) -> tuple[Any, sd.TransformersModel]:
    """A model whose generation_config says so; where it samples, of more tokens than the default top_k."""
    module = llama(seed, vocab=80) if more.get("do_sample") else llama(seed)
    module.generation_config.update(**settings, **more, pad_token_id=0)
    return module, sd.TransformersModel(module)


def generated(module: Any, prompt: list[int]) -> list[int]:
    """What transformers writes by the same configuration."""
    ids = torch.tensor([prompt])
    made = module.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=14)
    return made[0, len(prompt) :].tolist()


@pytest.mark.parametrize("name", GREEDY)
def test_greedy_text_is_that_of_generate(name: str) -> None:
    module, target = configured(GREEDY[name])
    draft = sd.ModelDrafter(sd.TransformersModel(noisy(module, 0.1)))
    prompts = [PROMPT, [3, 1], PROMPT[::-1]]
    theirs = [generated(module, prompt) for prompt in prompts]
    common = dict(max_new_tokens=14, sampling=target.generation_config)
    assert [sd.autoregressive(target, prompt, **common).tokens for prompt in prompts] == theirs
    assert sd.speculative(target, draft, prompts, k=3, **common).tokens == theirs
    plain, _ = configured({})
    if name not in ("plain", "sampling settings that greedy leaves alone", "min_new_tokens of one"):
        assert theirs != [generated(plain, prompt) for prompt in prompts], "the setting changes nothing here"


@pytest.mark.parametrize("name", SAMPLED)
def test_distributions_are_those_that_generate_draws_from(name: str) -> None:
    module, target = configured(SAMPLED[name], do_sample=True)
    config = module.generation_config
    made = sd.speculative(target, sd.ModelDrafter(target), PROMPT, k=3, seed=5, trace="full", sampling=config, **COMMON)
    text = list(PROMPT)
    for step in made.trace.rounds:
        whole = text + step.kept
        for i, found in enumerate(step.full_target[: len(step.kept)]):
            expected = processed(module, whole[: len(text) + i])
            torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), expected, rtol=0, atol=1e-6)
        text = whole
    plain = next_logits(target, PROMPT).double().softmax(-1)
    assert name == "top_k off" or (plain - processed(module, PROMPT)).abs().max() > 1e-4


def processed(module: Any, text: list[int]) -> torch.Tensor:
    """The distribution that generate() draws from after a text. -> [vocab]"""
    ids = torch.tensor([text])
    with torch.no_grad():
        made = module.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=1, output_scores=True, return_dict_in_generate=True
        )
    return made.scores[0][0].double().softmax(-1)


def test_own_processors_follow_those_of_the_configuration() -> None:
    module, target = configured(dict(suppress_tokens=[7, 3], top_k=4), do_sample=True)

    def only_seven(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([7]), 0.0)

    made = sd.autoregressive(target, PROMPT, sampling=module.generation_config, processors=[only_seven], **COMMON)
    ids = torch.tensor([PROMPT])
    theirs = module.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=14, logits_processor=LogitsProcessorList([only_seven])
    )
    assert made.tokens == theirs[0, len(PROMPT) :].tolist() == [7] * 14


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("num_beams", 4),
        ("num_return_sequences", 3),
        ("guidance_scale", 1.5),
        ("penalty_alpha", 0.6),
        ("dola_layers", "low"),
    ],
)
def test_what_is_not_done_token_by_token_is_refused_by_name(setting: str, value: Any) -> None:
    config = GenerationConfig()
    setattr(config, setting, value)
    with pytest.raises(ValueError, match=rf"generation_config\.{setting}={value!r} .*unset it in a copy"):
        sd.autoregressive(configured({})[1], PROMPT, sampling=config, **COMMON)


def test_settings_that_are_not_used_are_told_once() -> None:
    _, target = configured(dict(repetition_penalty=1.5, temperature=0.6, top_p=0.9), do_sample=True)
    told = (
        "^repetition_penalty=1.5, temperature=0.6, top_p=0.9: set in the model's generation_config, and not used here"
    )
    with pytest.warns(UserWarning, match=told) as seen:
        sd.autoregressive(target, PROMPT, **COMMON)
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sd.autoregressive(target, PROMPT, **COMMON)


@pytest.mark.parametrize(
    ("settings", "given", "told"),
    [
        (dict(repetition_penalty=1.5), dict(sampling=sd.Sampling(0)), "^repetition_penalty=1.5: set"),
        (dict(repetition_penalty=1.5), dict(processors=[]), None),
        (dict(temperature=0.6, do_sample=True), dict(sampling=sd.Sampling()), None),
        (dict(temperature=0.6, do_sample=True), dict(processors=[]), "^temperature=0.6: set"),
        (dict(temperature=0.6), {}, None),  # generate() would not use it either
        (dict(eos_token_id=3, max_new_tokens=4, repetition_penalty=1.0, top_p=1.0, do_sample=True), {}, None),
        (dict(suppress_tokens=[4]), dict(sampling="own"), None),
    ],
    ids=str,
)
def test_only_what_is_set_and_not_replaced_is_told(settings: dict, given: dict, told: str | None) -> None:
    _, target = configured(settings)
    given = given | (dict(sampling=target.generation_config) if given.get("sampling") == "own" else {})
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        sd.autoregressive(target, PROMPT, **COMMON, **given)
    assert len(seen) == (told is not None)
    if told:
        assert str(seen[0].message).startswith(told[1:])
