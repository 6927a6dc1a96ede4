"""A prompt of any length takes no mask of its length squared, and leaves the cache as one forward would."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, IN_FLOAT32, build
from tiny import PROMPT, VOCAB, given_cache, llama, next_logits

import specdec_lite as sd
from specdec_lite.models import CHUNK, LEAST_CAUSAL

COMMON = dict(max_new_tokens=9, seed=4, stop=sd.Stop(), trace="full")


class Seen:
    """Notes for each forward with a cache how many tokens it reads, and the size of the mask that it is given."""

    def __init__(self, module: Any) -> None:
        self.plain, self.module, self.calls = module.forward, module, []
        module.forward = self.forward

    def forward(self, **kwargs: Any) -> Any:
        mask, n = kwargs["attention_mask"], kwargs["input_ids"].shape[1]
        if given_cache(kwargs) is not None:
            self.calls.append((n, mask if mask is None else tuple(mask.shape[2:])))
        return self.plain(**kwargs)


def texts(*lengths: int) -> list[list[int]]:
    return [[(3 * i * i + 5 * i + row) % VOCAB for i in range(n)] for row, n in enumerate(lengths)]


@torch.inference_mode()
@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("engine", ["eager", "auto"])
def test_a_text_read_at_once_is_an_uncached_forward(name: str, engine: str) -> None:
    """Longer than the shortest that goes without a mask: logits of all its tokens, and of those that follow it."""
    model = sd.TransformersModel(build(name), engine=engine)
    both = torch.tensor(texts(LEAST_CAUSAL + 9, LEAST_CAUSAL + 9))
    truth = model.module(input_ids=both, use_cache=False).logits
    cache = model.new_cache(2, 60)
    got = model.forward(both[:, :LEAST_CAUSAL], cache)
    cache.rewind([0, 3])
    rest = torch.stack([both[0, LEAST_CAUSAL:], both[1, LEAST_CAUSAL - 3 : -3]])
    after = model.forward(rest, cache)
    near = dict(rtol=0, atol=1e-5 if name in IN_FLOAT32 else 1e-9)
    torch.testing.assert_close(got, truth[:, :LEAST_CAUSAL], **near)
    torch.testing.assert_close(after[0], truth[0, LEAST_CAUSAL:], **near)
    torch.testing.assert_close(after[1], truth[1, LEAST_CAUSAL - 3 : -3], **near)


@pytest.mark.parametrize("name", ["Llama", "Mistral", "GPT2"])
@pytest.mark.parametrize("lengths", [(61,), (9, 61, 37), (1, 41), (LEAST_CAUSAL + 1,), (8, 9)], ids=str)
@pytest.mark.parametrize("causal", [True, False])
def test_chunks_are_as_one_forward(lengths: tuple[int, ...], name: str, causal: bool, monkeypatch: Any) -> None:
    target = sd.TransformersModel(build(name), engine="auto")
    right = [next_logits(target, text).double().softmax(-1) for text in texts(*lengths)]
    monkeypatch.setattr("specdec_lite.models.CHUNK", 8)
    if not causal:
        monkeypatch.setattr("specdec_lite.models.LEAST_CAUSAL", 10**6)
    found = sd.speculative(target, sd.ModelDrafter(target), texts(*lengths), **COMMON)
    for row, probs in enumerate(right):
        first = next(each for each in found.trace.rounds if each.row == row).full_target[0]
        torch.testing.assert_close(torch.tensor(first, dtype=torch.float64), probs, rtol=0, atol=1e-9)


def test_a_prompt_takes_no_mask_at_all_or_one_of_a_chunk() -> None:
    long = [i % VOCAB for i in range(2 * CHUNK + 9)]
    for name, expected in (("Llama", None), ("Mistral", CHUNK)):
        seen = Seen(long_context(name))
        sd.autoregressive(sd.TransformersModel(seen.module), long, max_new_tokens=2)
        (n, mask), *others = seen.calls
        assert (n, mask and mask[0]) == (len(long) - 1 if expected is None else CHUNK, expected)
        assert all(mask is None or max(n, mask[0]) <= CHUNK for n, mask in seen.calls)
        assert sum(n for n, _ in seen.calls) == len(long) + 1


def long_context(name: str) -> Any:
    from architectures import make

    return make(name, ARCHITECTURES[name] | dict(max_position_embeddings=4 * CHUNK))


@torch.inference_mode()
def test_causality_without_a_mask_is_needed_and_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison can fail: a kernel that is not told to be causal looks ahead."""
    from torch.nn.functional import scaled_dot_product_attention as real

    def looks_ahead(*args: Any, is_causal: bool = False, **given: Any) -> torch.Tensor:
        return real(*args, **given)

    monkeypatch.setattr("specdec_lite.engines.attention.scaled_dot_product_attention", looks_ahead)
    with pytest.raises(AssertionError):
        test_a_text_read_at_once_is_an_uncached_forward("Llama", "auto")


def test_short_prompts_take_a_mask_as_every_block_does() -> None:
    seen = Seen(llama())
    sd.autoregressive(sd.TransformersModel(seen.module), PROMPT, max_new_tokens=2)
    assert all(mask is not None for _, mask in seen.calls)
