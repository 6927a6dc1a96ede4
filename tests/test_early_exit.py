"""Some of a model's layers: hidden states, a stop and a start in every engine; and drafts from an early exit."""

from __future__ import annotations

import copy

import pytest
import torch
from architectures import ARCHITECTURES, IN_FLOAT32, build
from tiny import PROMPT, llama, pair, table_pair
from torch import Tensor

import specdec_lite as sd
from specdec_lite.draft import Texts
from specdec_lite.drafters.early_exit import EarlyExitSession
from specdec_lite.engines.engine import Span
from specdec_lite.kv_cache import KVCache
from specdec_lite.models import LanguageModel
from specdec_lite.theory.exact import largest_difference, sequence_distribution, target_distribution

TEXTS = torch.tensor([[5, 1, 7, 7, 2, 30], [3, 3, 8, 1, 0, 9]])
GREEDY = sd.Sampling(temperature=0)


def near(name: str) -> dict[str, float]:
    return dict(rtol=0, atol=1e-5 if name in IN_FLOAT32 else 1e-9)


def spanned(model: sd.TransformersModel, x: Tensor, span: Span, last_only: bool = False) -> tuple:
    """Logits and hidden states of a forward through some layers, over a fresh cache."""
    with torch.inference_mode():
        made = model.forward_span(x, model.new_cache(len(x), 40), span, last_only)
    return made.logits, made.hidden


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("engine", ["eager", "auto"])
def test_states_and_layers_are_the_modules_own(name: str, engine: str) -> None:
    model = sd.TransformersModel(build(name), engine=engine)
    told, n = copy.deepcopy(model.module), model.layers  # of a copy, in which asking for states leaves hooks
    with torch.inference_mode():
        truth = told(input_ids=TEXTS, use_cache=False, output_hidden_states=True)
    logits, hidden = spanned(model, TEXTS, Span(0, n, tuple(range(n + 1))))
    torch.testing.assert_close(logits, truth.logits, **near(name))
    for i in range(n):  # the last of transformers' own is behind the final norm
        torch.testing.assert_close(hidden[i], truth.hidden_states[i], **near(name))
    assert (hidden[n - 1] - hidden[n]).abs().max() > 1e-3
    for start in range(1, n):  # the rest of the layers go on from there
        rest, _ = spanned(model, hidden[start], Span(start, n))
        torch.testing.assert_close(rest, truth.logits, **near(name))
    wrong, _ = spanned(model, hidden[0], Span(1, n))  # off by one layer
    assert (wrong - truth.logits).abs().max() > 1e-3
    last, _ = spanned(model, TEXTS, Span(0, n), last_only=True)
    torch.testing.assert_close(last, truth.logits[:, -1:], **near(name))


@pytest.mark.parametrize("engine", ["eager", "lean", "graph"])
def test_an_early_exit_is_the_model_cut_short(engine: str) -> None:
    whole = llama(layers=3)
    short = copy.deepcopy(whole)
    short.model.layers, short.config.num_hidden_layers = short.model.layers[:2], 2
    with torch.inference_mode():
        truth = short(input_ids=TEXTS, use_cache=False).logits
    logits, _ = spanned(sd.TransformersModel(whole, engine=engine), TEXTS, Span(0, 2))
    torch.testing.assert_close(logits, truth, rtol=0, atol=1e-12)


def test_layers_keep_their_own_part_of_the_cache() -> None:
    """Stop at a layer, rewind, go on from it: the cache is then as after one whole forward."""
    target, _ = pair()
    one, two = target.new_cache(2, 40), target.new_cache(2, 40)
    with torch.inference_mode():
        target.forward(TEXTS, one)
        state = target.forward_span(TEXTS, two, Span(0, 1, (1,))).hidden[1]
        two.rewind([6, 6])
        target.forward_span(state, two, Span(1, target.layers))
    assert one.lengths == two.lengths == [6, 6]
    for layer, kept in one.layers.items():
        for mine, theirs in zip(two.layers[layer], kept, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_the_module_is_as_it_was_after_a_span() -> None:
    module = llama()
    model = sd.TransformersModel(module, engine="eager")
    spanned(model, TEXTS, Span(0, 1))
    assert not any("forward" in vars(part) for part in module.modules())
    with pytest.raises(ValueError, match="needs 0 <= start < stop <= 2 layers"):
        spanned(model, TEXTS, Span(0, 3))
    with pytest.raises(ValueError, match="states between them"):
        spanned(model, TEXTS, Span(0, 1, (2,)))


# The drafter


def tiny_llama(vocab: int = 3, layers: int = 3) -> sd.TransformersModel:
    return sd.TransformersModel(llama(vocab=vocab, layers=layers), engine="lean")


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("sampling", [sd.Sampling(), GREEDY, sd.Sampling(top_k=2)], ids=str)
def test_an_early_exit_keeps_the_distribution(k: int, sampling: sd.Sampling) -> None:
    target, how = tiny_llama(), dict(max_new_tokens=3, sampling=sampling, stop=sd.Stop([2]))
    made = sequence_distribution(target, sd.EarlyExitDrafter(1), [0, 1, 0], k=k, **how)
    assert largest_difference(made, target_distribution(target, [0, 1, 0], **how)) < 1e-12


class Leaves(sd.EarlyExitDrafter):
    """BUG: what the first round drafted stays in the target's cache."""

    def open(self, texts: Texts, target: LanguageModel, cache: KVCache) -> EarlyExitSession:
        session, rewind = super().open(texts, target, cache), cache.rewind

        def once(tokens: list[int]) -> None:
            if tokens == [1]:  # the drafter's own, of k = 1
                cache.rewind = rewind
            else:
                rewind(tokens)

        cache.rewind = once
        return session


def test_drafts_left_in_the_shared_cache_are_found() -> None:
    target, how = tiny_llama(), dict(max_new_tokens=3, stop=sd.Stop())
    wanted = target_distribution(target, [0, 1, 0], **how)
    assert largest_difference(sequence_distribution(target, Leaves(1), [0, 1, 0], k=1, rows=1, **how), wanted) > 1e-3


@pytest.mark.parametrize("engine", ["eager", "auto"])
@pytest.mark.parametrize("name", ["Llama", "GPT2", "Gemma2", "Mistral", "OPT"])
def test_greedy_text_is_the_naive_one(name: str, engine: str) -> None:
    target = sd.TransformersModel(build(name), engine=engine)
    how, prompts = dict(sampling=GREEDY, max_new_tokens=20, stop=sd.Stop()), [PROMPT, PROMPT[:2]]
    naive = sd.autoregressive(target, prompts, **how)
    made = sd.speculative(target, sd.EarlyExitDrafter(), prompts, k=3, **how)
    assert made.tokens == naive.tokens


def test_all_is_accepted_where_the_late_layers_do_nothing() -> None:
    module = llama(layers=3)
    with torch.no_grad():
        for layer in module.model.layers[1:]:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    made = sd.speculative(sd.TransformersModel(module), sd.EarlyExitDrafter(1), PROMPT, k=4, stop=sd.Stop())
    assert made.trace.accepted_per_judged == 1


def test_what_cannot_exit_is_refused() -> None:
    target, _ = pair()
    for layers in (0, -1, 1.5):
        with pytest.raises(ValueError, match="layers must be"):
            sd.EarlyExitDrafter(layers)
    with pytest.raises(ValueError, match="the target has 2 layers, and 2 of them leave none out"):
        sd.speculative(target, sd.EarlyExitDrafter(2), PROMPT)
    with pytest.raises(TypeError, match="needs a TransformersModel as target"):
        sd.speculative(table_pair()[0], sd.EarlyExitDrafter(1), [0, 1], max_new_tokens=8)
