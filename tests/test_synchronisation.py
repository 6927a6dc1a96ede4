"""A round waits for the device once. The device here is a kind of tensor that counts who asks for its values."""

from __future__ import annotations

import copy
import time
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import pretended_gpu
import pytest
import torch
from architectures import build
from tiny import noisy
from torch import Tensor

import specdec_lite as sd
from specdec_lite.decoding import start
from specdec_lite.transfer import PhaseTimer

PROMPTS = [[5, 1, 7, 7, 2], [3, 3, 9]]
WAITING = ("item", "tolist", "cpu", "numpy", "to", "__bool__", "__int__", "__float__", "__index__")


class OnDevice(Tensor):
    """Stands for a tensor on a GPU: whatever is computed from it is one too, and reading it is a synchronisation."""

    waits: Counter[str] = Counter()


def waiting(name: str) -> Callable[..., Any]:
    plain = getattr(Tensor, name)

    def wait(self: OnDevice, *args: Any, **kwargs: Any) -> Any:
        moves = name != "to" or any(isinstance(each, str | torch.device) for each in (*args, *kwargs.values()))
        OnDevice.waits[name] += moves  # to another dtype is no move
        return plain(self.as_subclass(Tensor), *args, **kwargs)

    return wait


for name in WAITING:
    setattr(OnDevice, name, waiting(name))


class Device:
    """A model whose logits are on the device."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def forward(self, tokens: Tensor, cache: Any, last_only: bool = False) -> Tensor:
        return self.model.forward(tokens, cache, last_only).as_subclass(OnDevice)


@pytest.fixture(params=["eager", "lean", "graph"])
def models(request: pytest.FixtureRequest) -> tuple[Device, sd.ModelDrafter]:
    module = build("Llama")
    target, draft = (Device(sd.TransformersModel(m, engine=request.param)) for m in (module, noisy(module, 0.05)))
    return target, sd.ModelDrafter(draft)


def waits_in_rounds(target: Device, drafter: Any, **options: Any) -> list[int]:
    """How often each round of a run waited."""
    run, counts = start(target, drafter, PROMPTS, k=4 if drafter else 0, max_new_tokens=20, **options), []
    while run.unfinished:
        OnDevice.waits.clear()
        run.round()
        counts.append(OnDevice.waits.total())
    return counts


@pytest.mark.parametrize("trace", ["off", "summary", "full"])
@pytest.mark.parametrize(
    "sampling",
    [sd.Sampling(0), sd.Sampling(), sd.Sampling(0.8, top_k=7, top_p=0.9, min_p=0.01)],
    ids=["greedy", "plain", "filtered"],
)
def test_a_round_waits_once(models: tuple[Device, sd.ModelDrafter], sampling: sd.Sampling, trace: Any) -> None:
    target, drafter = models
    for proposer in (drafter, sd.PromptLookupDrafter(), None):
        counts = waits_in_rounds(target, proposer, sampling=sampling, trace=trace, stop=sd.Stop([4]))
        assert counts == [1] * len(counts)
        assert len(counts) > 3


@pytest.mark.parametrize("trace", ["off", "full"])
def test_a_round_with_a_tree_waits_once(models: tuple[Device, sd.ModelDrafter], trace: Any) -> None:
    target, drafter = models
    counts = waits_in_rounds(target, sd.TreeDrafter(drafter, (3, 2)), trace=trace, stop=sd.Stop())
    assert counts == [1] * len(counts)
    assert len(counts) > 3


RULES = [sd.TokenRejection(), sd.SampleAndMatch(), sd.BlockVerification()]


@pytest.mark.parametrize("rule", RULES, ids=["rejection", "match", "block"])
def test_no_rule_waits(models: tuple[Device, sd.ModelDrafter], rule: Any) -> None:
    counts = waits_in_rounds(*models, rule=rule)
    assert counts == [1] * len(counts)


READ: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda one: one.item(),
    "tolist": lambda one: one.tolist(),
    "cpu": lambda one: one.cpu(),
    "numpy": lambda one: one.numpy(),
    "to": lambda one: one.to("cpu"),
    "__bool__": lambda one: 1 if one > -1 else 0,
    "__int__": lambda one: int(one),
    "__float__": lambda one: float(one),
    "__index__": lambda one: [0, 1, 2][(one * 0).long()],
}


@pytest.mark.parametrize("name", WAITING)
def test_a_planted_wait_of_each_kind_is_caught(models: tuple[Device, sd.ModelDrafter], name: str) -> None:
    class Curious(sd.TokenRejection):
        def accept_prob(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
            chance = super().accept_prob(p_target, p_draft, tokens)
            if chance.numel():  # the last round may draft nothing
                READ[name](chance.flatten()[0])
            return chance

    counts = waits_in_rounds(*models, rule=Curious())
    assert max(counts) > 1


class Event(pretended_gpu.Event):
    """A CUDA event that the device reaches at once; waiting for it is a failure."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def synchronize(self) -> None:
        raise AssertionError("the host waited")


def test_a_gpu_s_last_phase_ends_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    clock = PhaseTimer(torch.device("cuda"))
    clock.end("draft"), clock.end("verify"), clock.end("draft"), clock.end("rest")
    last = clock.marks[-1].at
    time.sleep(0.05)  # what the host still does belongs to the last phase
    seconds = clock.seconds()
    assert list(seconds) == ["draft", "verify", "rest"]
    assert seconds["rest"] > 0.05
    assert seconds["draft"] + seconds["verify"] <= last - clock.began


def waits_for_a_gpu(call: Callable[[], object]) -> int:
    """How often the host waits for the GPU, as CUDA tells."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")  # which itself warns that it is a prototype
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchroniz" in str(each.message) for each in seen)


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["eager", "lean", "graph"])
@pytest.mark.parametrize("sampling", [sd.Sampling(0), sd.Sampling(0.8, top_k=7)], ids=["greedy", "filtered"])
def test_a_gpu_says_the_same(sampling: sd.Sampling, engine: str) -> None:
    """CUDA's own count: everything but the one transfer to the host is free of synchronisation."""
    modules = [copy.deepcopy(each).float().cuda() for each in (build("Llama"), noisy(build("Llama"), 0.05))]
    target, draft = (sd.TransformersModel(each, engine=engine) for each in modules)
    run = start(target, sd.ModelDrafter(draft), PROMPTS, k=4, max_new_tokens=20, sampling=sampling)
    for _ in range(3):  # recorded, numbers drawn ahead
        run.round()
    assert waits_for_a_gpu(run.round) == 1
