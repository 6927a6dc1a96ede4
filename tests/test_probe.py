"""The probe finds by itself what differs between an engine and the module: faults are planted one at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, make, scaled
from tiny import llama
from torch import Tensor

import specdec_lite as sd
from specdec_lite.engines.architecture import boundaries
from specdec_lite.engines.lean import LeanEngine, RotaryTable
from specdec_lite.kv_cache import BUCKET
from specdec_lite.loading.probe import probe

ENGINES = ["eager", "lean", "graph"]


SCALED = {"dynamic": ("dynamic", 128), "dynamic, an odd length": ("dynamic", 100), "longrope": ("longrope", 512)}


@torch.inference_mode()
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", SCALED)
@pytest.mark.parametrize("after_a_long_one", [False, True])
def test_angles_are_those_of_the_text_and_not_of_the_cache(case: str, engine: str, after_a_long_one: bool) -> None:
    """Every distribution up to the boundary is an uncached forward's, whatever room the cache has."""
    module = scaled(*SCALED[case])
    if after_a_long_one:  # the module keeps the frequencies of the longest text that it has met
        module(input_ids=torch.ones(1, 200, dtype=torch.long), use_cache=False)
    model = sd.TransformersModel(module, engine=engine)
    probe(model)
    assert model.context == SCALED[case][1] if "dynamic" in case else 128
    length = model.context - 8
    text = [(3 * i * i + 5 * i) % model.vocab_size for i in range(length)]
    for room in (1, 8):
        run = sd.autoregressive(model, text[: length - room + 8 - 7], max_new_tokens=room, seed=3, trace="full")
        found = [each for step in run.trace.rounds for each in step.full_target]
        whole = text[: length - room + 1] + run.tokens
        for i, probs in enumerate(found):
            ids = torch.tensor([whole[: length - room + 1 + i]])
            truth = module(input_ids=ids, use_cache=False).logits[0, -1].softmax(-1)
            torch.testing.assert_close(torch.tensor(probs, dtype=torch.float64), truth.double(), rtol=0, atol=1e-6)


def test_the_boundaries_are_those_that_the_configuration_names() -> None:
    assert boundaries(llama(context=160).config) == {160}
    assert boundaries(scaled("dynamic", 100).config) == {100}
    assert boundaries(scaled("longrope", 512).config) == {128}  # no text reaches 512
    yarn = dict(rope_type="yarn", factor=4.0, rope_theta=1e4, original_max_position_embeddings=32)
    module = make("Llama", ARCHITECTURES["Llama"] | dict(max_position_embeddings=128, rope_parameters=yarn))
    assert boundaries(module.config) == {32, 128}


# Faults, each planted alone


class OfTheCapacity(RotaryTable):
    def __call__(self, positions: int) -> Tensor:
        return self._make(max(64, 1 << (positions - 1).bit_length()))


class TooShort(RotaryTable):
    def __call__(self, positions: int) -> Tensor:
        return self._make(100)[torch.arange(positions).clamp_max(99)]


class OffByOne(RotaryTable):
    def _make(self, length: int) -> Tensor:
        return super()._make(length).roll(1, 0)


def angles_of_the_capacity(engine: LeanEngine) -> None:
    """As it once was: a table for as many positions as the cache has slots."""
    engine.turns_for.__class__ = OfTheCapacity


def table_too_short(engine: LeanEngine) -> None:
    engine.turns_for.__class__ = TooShort


def positions_off_by_one(engine: LeanEngine) -> None:
    engine.turns_for.__class__ = OffByOne


def another_scale(engine: LeanEngine) -> None:
    engine.layers[0].scale = 0.3


def layers_share_a_cache(engine: LeanEngine) -> None:
    engine.layers[1].index = 0


def layers_in_another_order(engine: LeanEngine) -> None:
    engine.layers.reverse()


def first_logits_for_the_last(engine: LeanEngine) -> None:
    call = LeanEngine.__call__

    class Wrong(LeanEngine):
        def __call__(self, *given: Any) -> Tensor:
            logits = call(self, *given[:-1], False)
            return logits[:, :1] if given[-1] else logits

    engine.__class__ = Wrong


def off_at(rows: Callable[[int], bool]) -> Callable[[LeanEngine], None]:
    """A kernel that is wrong at some numbers of rows."""

    def plant(engine: LeanEngine) -> None:
        right = engine.layers[0].down
        engine.layers[0].down = lambda x: right(x) * (1.01 if rows(x.numel() // x.shape[-1]) else 1)

    return plant


def one_mask_for_all_rows(engine: LeanEngine) -> None:
    call = LeanEngine.__call__

    class Wrong(LeanEngine):
        def __call__(self, tokens: Tensor, positions: Tensor, masks: Any, *given: Any) -> Tensor:
            return call(self, tokens, positions, {k: m[:1].expand_as(m) for k, m in masks.items()}, *given)

    engine.__class__ = Wrong


def only_the_first_slots(engine: LeanEngine) -> None:
    """Of a cache with more than a bucket."""
    for layer in engine.layers:

        def attend(x: Tensor, turns: Tensor, mask: Tensor | None, cache: Any, right: Any = layer.attend) -> Tensor:
            if mask is None:
                return right(x, turns, mask, cache)
            hidden = torch.arange(mask.shape[-1]) >= BUCKET
            return right(x, turns, mask.masked_fill(hidden, torch.finfo(mask.dtype).min), cache)

        layer.attend = attend


def no_bias(engine: LeanEngine) -> None:
    attention = engine.layers[0]
    right, zero = attention.qkv, torch.zeros(1, 16, dtype=torch.float64)
    attention.qkv = lambda x: right(x) - right(zero)


def half_as_exact(engine: LeanEngine) -> None:
    """Weights rounded to bfloat16, as a packed copy might hold them."""
    right = engine.head
    engine.head = lambda x: right(x.bfloat16().to(x.dtype))


FAULTS = [
    (angles_of_the_capacity, "late|spacious", lambda: scaled("dynamic")),
    (angles_of_the_capacity, "late|spacious", lambda: scaled("longrope", 512)),
    (table_too_short, "late", llama),
    (positions_off_by_one, "cached", llama),
    (another_scale, "cached", llama),
    (layers_share_a_cache, "cached", llama),
    (layers_in_another_order, "cached", llama),
    (first_logits_for_the_last, "long", llama),
    (off_at(lambda rows: rows == 1), "long", llama),
    (off_at(lambda rows: rows == 5), "long", llama),
    (off_at(lambda rows: rows > 32), "long", llama),
    (one_mask_for_all_rows, "ragged", llama),
    (only_the_first_slots, "roomy|long", llama),
    (no_bias, "cached", lambda: biased(make("Qwen2", ARCHITECTURES["Qwen2"]))),
    (half_as_exact, "cached", lambda: llama().float()),
]


def biased(module: Any) -> Any:
    with torch.no_grad():
        module.model.layers[0].self_attn.k_proj.bias += 1
        module.model.layers[0].self_attn.v_proj.bias += 1
    return module


@pytest.mark.parametrize(
    ("plant", "way", "model"), FAULTS, ids=[f"{i} {fault[0].__name__}" for i, fault in enumerate(FAULTS)]
)
def test_a_planted_fault_is_found(plant: Any, way: str, model: Any) -> None:
    made = sd.TransformersModel(model(), engine="lean")
    probe(made)
    plant(made.engine)
    with pytest.raises(ValueError, match=f"other logits in a ({way}) forward"):
        probe(made)


@pytest.mark.parametrize("name", ["Llama", "Mistral", "Qwen2", "Qwen3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_without_a_fault_passes_in_every_dtype(name: str, dtype: torch.dtype, engine: str) -> None:
    probe(sd.TransformersModel(make(name, ARCHITECTURES[name]).to(dtype), engine=engine))
