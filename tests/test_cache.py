"""The cache behaves as lists that grow and shrink, row by row, and hides everything else."""

from __future__ import annotations

import random

import pytest
import torch
from tiny import PROMPT, VOCAB, next_logits, pair
from torch import Tensor

from specdec_lite.kv_cache import BUCKET, KVCache
from specdec_lite.models import prefill

HEADS, SIZE = 2, 3


def keys_of(rows: list[list[int]]) -> Tensor:
    """Keys that tell which number they stand for. -> [batch, heads, n, size]"""
    numbers = torch.tensor(rows, dtype=torch.float64)[:, None, :, None]
    return numbers + torch.arange(HEADS).view(1, -1, 1, 1) / 10 + torch.arange(SIZE) / 100


def write(cache: KVCache, rows: list[list[int]], layer: int = 0) -> tuple[Tensor, Tensor]:
    """Announce, write, and keep a block. -> visible keys and values [batch, heads, visible, size]"""
    cache.reserve(len(rows[0]))
    seen = cache.update(keys_of(rows), -keys_of(rows), layer)
    cache.advance(len(rows[0]))
    return seen


@pytest.mark.parametrize("seed", range(6))
def test_it_equals_lists_that_grow_and_shrink(seed: int) -> None:
    chance = random.Random(seed)
    batch, capacity = chance.randint(1, 4), chance.choice([10, BUCKET, 150])
    cache, lists, number = KVCache(batch, capacity), [[] for _ in range(batch)], 0
    for _ in range(40):
        n = chance.randint(1, 6)
        if max(map(len, lists)) + n > capacity:
            with pytest.raises(ValueError, match=f"holds {capacity} tokens"):
                cache.reserve(n)
        else:
            block = [[number + row * 1000 + i for i in range(n)] for row in range(batch)]
            number += n
            keys, values = write(cache, block)
            for row, more in zip(lists, block, strict=True):
                row += more
            assert keys.shape[2] >= max(map(len, lists))
            assert (keys.shape[2] % BUCKET == 0) or keys.shape[2] == capacity
            for row, held in enumerate(lists):
                assert torch.equal(keys[row, :, : len(held)], keys_of([held])[0])
                assert torch.equal(values[row, :, : len(held)], -keys_of([held])[0])
        forget = [chance.randint(0, min(4, len(held))) for held in lists]
        cache.rewind(forget)
        lists = [held[: len(held) - k] for held, k in zip(lists, forget, strict=True)]
        assert cache.length.tolist() == cache.lengths == [len(held) for held in lists]
        assert cache.get_seq_length() == max(map(len, lists))


def test_rewinding_touches_no_slot() -> None:
    cache = KVCache(2, 8)
    keys, _ = write(cache, [[1, 2, 3], [4, 5, 6]])
    before = keys.clone()
    cache.rewind([2, 0])
    assert cache.lengths == [1, 3]
    assert torch.equal(cache.layers[0][0][:, :, :8], before)


def test_too_much_is_refused_before_anything_is_written() -> None:
    cache = KVCache(2, 4)
    write(cache, [[1, 2, 3], [4, 5, 6]])
    cache.rewind([3, 0])
    held = cache.layers[0][0].clone()
    with pytest.raises(ValueError, match="holds 4 tokens a row, and 5 are wanted"):
        cache.reserve(2)
    cache.reserve(1)
    assert torch.equal(held, cache.layers[0][0])
    assert cache.lengths == [0, 3]


@pytest.mark.parametrize("window", [None, 1, 3, 100])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_the_mask_shows_what_came_before_within_the_window(window: int | None, dtype: torch.dtype) -> None:
    cache = KVCache(3, 70)
    write(cache, [[0] * 9] * 3)
    cache.rewind([0, 4, 9])
    cache.reserve(3)
    mask = cache.mask(dtype, window)
    assert mask.shape == (3, 1, 3, BUCKET)
    assert mask.dtype == dtype
    for row, start in enumerate([9, 5, 0]):
        for i in range(3):
            for slot in range(BUCKET):
                at = start + i
                seen = slot <= at and (window is None or at - slot < window)
                assert mask[row, 0, i, slot].item() == (0 if seen else torch.finfo(dtype).min)


def test_more_slots_become_visible_in_steps() -> None:
    cache = KVCache(1, 2 * BUCKET + 5)
    for length, visible in ((BUCKET, BUCKET), (BUCKET + 1, 2 * BUCKET), (2 * BUCKET + 1, 2 * BUCKET + 5)):
        cache.reserve(length)
        assert cache.visible == visible


def test_bytes_are_those_of_all_keys_and_values() -> None:
    cache = KVCache(2, 10)
    assert cache.nbytes == 0
    write(cache, [[1], [2]], layer=0)
    assert cache.nbytes == 2 * 2 * 10 * HEADS * SIZE * 8
    cache.rewind([1, 1])
    write(cache, [[1], [2]], layer=1)
    assert cache.nbytes == 2 * (2 * 2 * 10 * HEADS * SIZE * 8)


def test_layers_may_keep_different_numbers_of_heads() -> None:
    cache, seen = KVCache(2, 10), {}
    for n, forget in ((3, [1, 0]), (2, [0, 0])):
        cache.reserve(n)
        for layer, heads in enumerate((2, 3, 2)):
            new = torch.randn(2, heads, n, 4)
            keys, values = cache.update(new, 2 * new, layer)
            at = cache.length.tolist()
            for row in range(2):
                assert torch.equal(keys[row, :, at[row] : at[row] + n], new[row])
                assert torch.equal(values[row, :, at[row] : at[row] + n], 2 * new[row])
                before = seen.get((layer, row), new[row, :, :0])
                assert torch.equal(keys[row, :, : at[row]], before)
                seen[layer, row] = keys[row, :, : at[row] + n - forget[row]].clone()
        cache.advance(n)
        cache.rewind(forget)


def poisoned_logits(poison: float, valid: bool) -> tuple[Tensor, Tensor]:
    """Logits of a ragged step without and with poison in slots that nothing may see, or in one that counts."""
    model, made = pair()[0], []
    for value in (None, poison):
        cache = model.new_cache(2, 40)
        prefill(model, cache, [[*PROMPT, 3], [4, 1]])  # holds 5 and 1 tokens
        model.forward(torch.tensor([[1, 2, 3], [4, 5, 6]]), cache)
        cache.rewind([2, 1])  # holds 6 and 3; the slots after are stale or never written
        if value is not None:
            for kept in (kept for layer in cache.layers.values() for kept in layer):
                kept[0, :, 6:], kept[1, :, 3:] = value, value
                if valid:
                    kept[1, :, 0] = value
        made.append(model.forward(torch.tensor([[7, 8], [9, 10]]), cache))
    return made[0], made[1]


@torch.inference_mode()
@pytest.mark.parametrize("poison", [1e3, -1e30, 1e300])
def test_stale_and_unwritten_slots_have_no_influence(poison: float) -> None:
    clean, dirty = poisoned_logits(poison, valid=False)
    assert torch.equal(clean, dirty)


@torch.inference_mode()
def test_a_poisoned_slot_that_counts_would_show() -> None:
    clean, dirty = poisoned_logits(1e3, valid=True)
    assert torch.equal(clean[0], dirty[0])
    assert (clean[1] - dirty[1]).abs().max() > 1e-3


@torch.inference_mode()
def test_a_long_text_across_buckets_equals_an_uncached_forward() -> None:
    model, text = pair()[0], [(7 * i * i + i) % VOCAB for i in range(BUCKET + 9)]
    cache = model.new_cache(1, 100)
    model.forward(torch.tensor([text[: BUCKET - 2]]), cache)
    for i in range(BUCKET - 2, len(text)):
        logits = model.forward(torch.tensor([[text[i]]]), cache)[0, -1]
        torch.testing.assert_close(logits, next_logits(model, text[: i + 1]), rtol=0, atol=1e-11)
