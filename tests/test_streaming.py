"""A stream gives a round at a time, can be left at any time, and leaves no trace in models or in the world."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tiny import PROMPT, Counted, llama, noisy, pair
from torch import Tensor

import specdec_lite as sd

COMMON = dict(k=3, max_new_tokens=18, seed=4)


def test_a_stream_gives_a_round_at_a_time() -> None:
    target, draft = Counted(pair()[0]), Counted(pair()[1])
    stream = sd.stream(target, sd.ModelDrafter(draft), PROMPT, **COMMON)
    assert isinstance(stream, Iterator)
    for n in range(1, 4):
        each = next(stream)
        assert each.index == n - 1
        assert len(target.widths) == 1 + n  # prefill, then one forward for each round that was asked for
        assert not torch.is_inference_mode_enabled()  # the reader's own code runs as it did
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("prompt", [PROMPT, [PROMPT, [3], [8, 2]]], ids=["one", "batch"])
def test_a_stream_gives_the_rounds_of_the_whole_run(prompt: list) -> None:
    target, draft = pair()
    made = sd.speculative(target, sd.ModelDrafter(draft), prompt, **COMMON)
    rounds = list(sd.stream(target, sd.ModelDrafter(draft), prompt, **COMMON))
    for one, other in zip(made.trace.rounds, rounds, strict=True):
        assert set(one.seconds) == set(other.seconds) == {"draft", "verify", "rest"}
        one.seconds = other.seconds
        assert one == other
    assert [(r.index, r.row) for r in rounds] == sorted((r.index, r.row) for r in rounds)


def test_without_a_drafter_it_is_naive() -> None:
    target = pair()[0]
    rounds = list(sd.stream(target, None, PROMPT, max_new_tokens=6, seed=4))
    assert [r.kind for r in rounds] == ["sampled"] * 6
    assert [r.token for r in rounds] == sd.autoregressive(target, PROMPT, max_new_tokens=6, seed=4).tokens


def test_arguments_are_checked_at_the_call() -> None:
    target = Counted(pair()[0])
    with pytest.raises(ValueError, match="max_new_tokens"):
        sd.stream(target, sd.PromptLookupDrafter(), PROMPT, max_new_tokens=0)
    assert target.widths == []


# Leaving early


class Interrupted(Counted):
    """Raises in its n-th forward, as when somebody presses the stop button."""

    at: int | None = None

    def forward(self, tokens: Tensor, cache: Any, last_only: bool = False) -> Tensor:
        if len(self.widths) == self.at:
            self.at = None
            raise KeyboardInterrupt
        return super().forward(tokens, cache, last_only)


class Halfway(Interrupted):
    """The same, after the module ran and before the cache was told."""

    def forward(self, tokens: Tensor, cache: Any, last_only: bool = False) -> Tensor:
        if len(self.widths) == self.at:
            self.at = None
            cache.advance = self.stop
        return Counted.forward(self, tokens, cache, last_only)

    def stop(self, n: int) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("kind", [Interrupted, Halfway])
@pytest.mark.parametrize("role", ["target", "draft"])
@pytest.mark.parametrize("at", [0, 1, 4])
def test_an_interrupt_in_a_forward_leaves_models_usable(kind: type, role: str, at: int) -> None:
    models = dict(zip(("target", "draft"), map(kind, pair()), strict=True))
    drafter = sd.ModelDrafter(models["draft"])
    before = sd.speculative(models["target"], drafter, PROMPT, **COMMON)
    for model in models.values():
        model.widths.clear()
    models[role].at = at
    with pytest.raises(KeyboardInterrupt):
        sd.speculative(models["target"], drafter, PROMPT, **COMMON)
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()
    assert sd.speculative(models["target"], drafter, PROMPT, **COMMON).tokens == before.tokens


def test_breaking_out_leaves_models_usable() -> None:
    target, draft = pair()
    drafter = sd.ModelDrafter(draft)
    before = sd.speculative(target, drafter, [PROMPT, [2]], **COMMON)
    for each in sd.stream(target, drafter, [PROMPT, [2]], **COMMON):
        if each.index == 1:
            break  # between the rows of a step
    left = sd.stream(target, drafter, PROMPT, **COMMON)
    next(left)
    left.close()
    assert sd.speculative(target, drafter, [PROMPT, [2]], **COMMON).tokens == before.tokens


# Nothing is written


def world(*models: sd.TransformersModel) -> dict[str, Any]:
    """Everything of some models, and of the world, that a decoder could be tempted to write."""
    seen: dict[str, Any] = {
        "torch": torch.random.get_rng_state().tolist(),
        "numpy": repr(np.random.get_state()),  # noqa: NPY002
        "python": random.getstate(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype()),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    for i, model in enumerate(models):
        seen[f"wrapper {i}"] = {name: id(value) for name, value in vars(model).items()}
        seen[f"config {i}"] = model.module.config.to_dict(), vars(model.module.config).keys()
        seen[f"generation {i}"] = model.module.generation_config.to_dict()
        for name, module in model.module.named_modules():
            for key, value in vars(module).items():
                detail = tuple(value.items()) if isinstance(value, dict) and key != "_modules" else ()
                seen[f"{i}.{name}.{key}"] = id(value), repr(value), [id(part) for _, part in detail]
        for name, weight in (*model.module.named_parameters(), *model.module.named_buffers()):
            seen[f"weight {i} {name}"] = id(weight), weight._version, weight.tolist(), weight.requires_grad, weight.grad
    return seen


def interrupted(target: sd.TransformersModel, drafter: sd.ModelDrafter) -> None:
    stopped = Interrupted(target)
    stopped.at = 2
    with pytest.raises(KeyboardInterrupt):
        sd.speculative(stopped, drafter, PROMPT, **COMMON)


def abandoned(target: sd.TransformersModel, drafter: sd.ModelDrafter) -> None:
    next(sd.stream(target, drafter, PROMPT, **COMMON))


RUNS: dict[str, Callable[[sd.TransformersModel, sd.ModelDrafter], Any]] = {
    "naive": lambda target, drafter: sd.autoregressive(target, PROMPT, max_new_tokens=5),
    "sampled": lambda target, drafter: sd.speculative(target, drafter, [PROMPT, [1]], **COMMON, trace="full"),
    "greedy": lambda target, drafter: sd.speculative(
        target, drafter, PROMPT, **COMMON, sampling=sd.Sampling(temperature=0)
    ),
    "lookup": lambda target, drafter: sd.speculative(target, sd.PromptLookupDrafter(), PROMPT, **COMMON),
    "interrupted": interrupted,
    "abandoned": abandoned,
}


def test_no_field_of_a_model_and_no_global_state_is_written() -> None:
    module = llama(layers=1)
    target, draft = sd.TransformersModel(module), sd.TransformersModel(noisy(module, 0.1))
    drafter = sd.ModelDrafter(draft)
    before = world(target, draft)
    for name, run in RUNS.items():
        run(target, drafter)
        after = world(target, draft)
        assert before.keys() == after.keys(), name
        assert [key for key in before if before[key] != after[key]] == [], name


def test_a_written_field_would_show() -> None:
    """The control, for each kind of thing that is looked at."""
    model = sd.TransformersModel(llama(layers=1))
    for write in (
        lambda: setattr(model.module.config, "use_cache", False),
        lambda: setattr(model.module.generation_config, "temperature", 0.3),
        lambda: setattr(model.module.model.layers[0], "seen", 1),
        lambda: setattr(model, "context", 9),
        lambda: model.module.lm_head.weight.data.add_(1e-3),
        lambda: model.module.register_forward_hook(lambda *_: None),
        lambda: torch.rand(1),
        lambda: random.random(),
        lambda: np.random.rand(),  # noqa: NPY002
    ):
        before = world(model)
        write()
        assert world(model) != before
