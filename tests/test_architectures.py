"""Greedy tokens equal transformers' own generation for every architecture: naive, speculative, alone and in a batch.

transformers runs each prompt alone, with its own cache and its own masks. Texts are longer than windows.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, IN_FLOAT32, WINDOWED, build
from tiny import VOCAB, next_logits, noisy

import specdec_lite as sd
from specdec_lite.kv_cache import KVCache
from specdec_lite.loading.probe import probe

PROMPTS = [[5, 1, 7, 7, 2], [3], [9, 4, 4, 30, 12, 8, 0, 21, 33, 2, 17]]
NEW, K = 24, 4
NOISE = {"Falcon": 0.15}  # the others' draft is off by 0.06 of the weights' spread


@cache
@torch.inference_mode()
def generated(name: str) -> list[list[int]]:
    """What transformers generates after each prompt."""
    module, texts = build(name), []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        made = module.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW)
        texts.append(made[0, len(prompt) :].tolist())
        assert len(texts[-1]) == NEW
        assert len(set(texts[-1])) >= 5, "a text that repeats itself would hide mistakes"
        two = module(input_ids=made, use_cache=False).logits[0, len(prompt) - 1 : -1].topk(2).values  # [NEW, 2]
        assert (two[:, 0] - two[:, 1]).min() > 1e-4, "rounding could decide"
    return texts


def check(name: str, target: sd.TransformersModel) -> list[Any]:
    """Compare all ways with transformers. -> the rounds in which K tokens were drafted"""
    other = noisy(build(name), NOISE.get(name, 0.06)).to(target.device)
    draft = sd.ModelDrafter(sd.TransformersModel(other))
    common = dict(max_new_tokens=NEW, sampling=sd.Sampling(temperature=0), stop=sd.Stop())
    truth = generated(name)
    assert [sd.autoregressive(target, prompt, **common).tokens for prompt in PROMPTS] == truth
    assert sd.autoregressive(target, PROMPTS, **common).tokens == truth
    alone = [sd.speculative(target, draft, prompt, k=K, **common) for prompt in PROMPTS]
    assert [run.tokens for run in alone] == truth
    batch = sd.speculative(target, draft, PROMPTS, k=K, **common)
    assert batch.tokens == truth
    return [each for run in (*alone, batch) for each in run.trace.rounds if len(each.drafted) == K]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_greedy_tokens_are_those_of_transformers(name: str) -> None:
    target = sd.TransformersModel(build(name))
    probe(target)
    accepted = {each.accepted for each in check(name, target)}
    assert 0 in accepted, "no round lost all its drafts"
    assert K in accepted, "no round kept all its drafts"
    assert accepted & set(range(1, K)), "no round kept some of its drafts"


# The comparison can fail


@pytest.mark.parametrize("change", ["none", "one more", "one less"])
@pytest.mark.parametrize("name", WINDOWED)
def test_a_wrong_window_is_noticed(name: str, change: str) -> None:
    target = sd.TransformersModel(build(name))
    wrong = {"none": lambda size: None, "one more": lambda size: size + 1, "one less": lambda size: size - 1}[change]
    target.windows = {kind: size and wrong(size) for kind, size in target.windows.items()}
    assert generated(name)
    with pytest.raises(AssertionError):
        check(name, target)


class Broken(sd.TransformersModel):
    """Runs its model over another kind of cache."""

    cache: type[KVCache]

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        return self.cache(batch, capacity, self.device)


class RewindsTooFew(KVCache):
    def rewind(self, tokens: list[int]) -> None:
        super().rewind([max(0, n - 1) for n in tokens])


class OnePositionForAll(KVCache):
    """Gives each row the positions of the first; slots and masks are right."""

    def reserve(self, n: int) -> None:
        super().reserve(n)
        self.right = self.positions

    def mask(self, dtype: torch.dtype, window: int | None = None) -> torch.Tensor:
        self.positions = self.right
        made = super().mask(dtype, window)
        self.positions = self.right[:1].expand(self.batch, -1)
        return made


class ShowsTheNextSlot(KVCache):
    """A mask that is off by one slot."""

    def mask(self, dtype: torch.dtype, window: int | None = None) -> torch.Tensor:
        return super().mask(dtype, window).roll(1, -1)


@pytest.mark.parametrize("cache", [RewindsTooFew, OnePositionForAll, ShowsTheNextSlot])
@pytest.mark.parametrize("name", ["Llama", "GPT2", "Gemma2", "Mixtral"])
def test_a_wrong_cache_is_noticed(name: str, cache: type[KVCache]) -> None:
    target = Broken(build(name))
    target.cache = cache
    assert generated(name)
    with pytest.raises(AssertionError):
        check(name, target)


# Logits, slot by slot


@torch.inference_mode()
def ragged(model: sd.TransformersModel, cache: type[KVCache], tolerance: float) -> torch.Tensor:
    """Appends and rewinds, by row, through more than one bucket of slots, against no cache. -> [n, 2, vocab]"""
    texts = [[(3 * i * i + 5 * i + row) % VOCAB for i in range(90)] for row in range(2)]
    cache, held, logits = cache(2, 100), [0, 0], []
    for n, forget in ((9, [2, 5]), (4, [0, 4]), (1, [1, 0]), (60, [3, 20]), (5, [0, 0])):
        block = torch.tensor([text[at : at + n] for text, at in zip(texts, held, strict=True)])
        logits.append(model.forward(block, cache)[:, -1])
        held = [at + n for at in held]
        for row, text in enumerate(texts):
            truth = next_logits(model, text[: held[row]])
            torch.testing.assert_close(logits[-1][row], truth, rtol=0, atol=tolerance)
        cache.rewind(forget)
        held = [at - k for at, k in zip(held, forget, strict=True)]
    return torch.stack(logits)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_ragged_appends_and_rewinds_equal_an_uncached_forward(name: str) -> None:
    ragged(sd.TransformersModel(build(name)), KVCache, 1e-5 if name in IN_FLOAT32 else 1e-10)


class Poisoned(KVCache):
    """Before each forward, slots without a token of their row are filled: stale ones and those never written."""

    poison: float
    reach = 0  # how many slots that do hold a token are filled as well: 1 is the row's last

    def reserve(self, n: int) -> None:
        super().reserve(n)
        for kept in (kept for pair in self.layers.values() for kept in pair):
            for row, length in enumerate(self.lengths):
                kept[row, :, length - self.reach :] = self.poison  # [batch, kv_heads, capacity, head_dim]


def poisoned(value: float, reach: int = 0) -> type[KVCache]:
    return type("Poison", (Poisoned,), dict(poison=value, reach=reach))


@pytest.mark.parametrize("name", ["Llama", "Mistral", "Gemma2", "GPTBigCode", "GptOss", "DeepseekV3"])
def test_no_slot_without_a_token_has_any_influence(name: str) -> None:
    model = sd.TransformersModel(build(name))
    clean = ragged(model, KVCache, 1e-5)
    for value in (1e30, -1e30):
        assert torch.equal(ragged(model, poisoned(value), 1e-5), clean)
    with pytest.raises(AssertionError):  # the poison works, where it is seen
        ragged(model, poisoned(1e30, reach=1), 1e-5)


def test_not_a_number_would_pass_through_a_mask() -> None:
    """A hidden slot weighs exactly zero, and zero times NaN is NaN: why a cache begins zeroed and not empty."""
    model = sd.TransformersModel(build("Llama"))
    with pytest.raises(AssertionError, match="nan"):
        ragged(model, poisoned(float("nan")), 1e-5)
