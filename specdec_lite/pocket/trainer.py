"""A training loop that a stopped run resumes from: schedule, batches, checkpoint, progress bar."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .muon import Muon

Loss = Callable[[nn.Module, Tensor], Tensor]  # (model, batch [rows, ...]) -> scalar
Items = Callable[[int, int], Iterator[Tensor]]  # (context, seed) -> endless items of `context` tokens each


@dataclass(frozen=True)
class Plan:
    """How long and how to train. The run ends at `tokens`, or after `minutes` if that comes first."""

    tokens: int
    minutes: float = math.inf
    context: int = 512
    final_context: int = 1024  # the last quarter sees longer windows, at the same tokens a step
    tokens_per_step: int = 4096
    muon_lr: float = 0.02
    adam_lr: float = 0.003
    decay_from: float = 0.5  # constant rate until here, then straight down to zero
    checkpoint_minutes: float = 3.0
    compile: bool = True
    bfloat16: bool = False  # matrix products only; weights, sums and the optimizer stay float32
    seed: int = 0

    def rate(self, progress: float, step: int) -> float:
        """Factor on the learning rates: warm-up over 50 steps, constant, linear decay."""
        decay = (1 - progress) / (1 - self.decay_from)
        return min(1.0, (step + 1) / 50, max(decay, 0.0))

    def context_at(self, progress: float) -> int:
        return self.context if progress < 0.75 else self.final_context


def compile_layers(model: nn.Module) -> None:
    """Compile a layer at a time: they share one shape, so one compilation serves them all."""
    for layer in model.model.layers:
        layer.compile()


def windows(stream: Tensor, context: int, seed: int) -> Iterator[Tensor]:
    """Endless windows of context + 1 tokens: all of the stream once an epoch, shuffled and shifted.

    Raises:
        ValueError: fewer tokens than two windows.
    """
    if len(stream) < 2 * context + 1:
        raise ValueError(f"{len(stream)} tokens of text are too few for windows of {context}")
    generator = torch.Generator().manual_seed(seed)
    while True:
        shift = int(torch.randint(context, (), generator=generator))
        starts = torch.arange(shift, len(stream) - context, context)
        for i in torch.randperm(len(starts), generator=generator).tolist():
            yield stream[starts[i] : starts[i] + context + 1]


def optimizers(model: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the embedding and the gains."""
    matrices, rest = [], []
    for name, param in model.named_parameters():
        (matrices if param.ndim == 2 and ".layers." in name else rest).append(param)
    adam = torch.optim.AdamW(rest, lr=plan.adam_lr, betas=(0.9, 0.95), weight_decay=0.0)
    made: list[torch.optim.Optimizer] = [Muon(matrices, lr=plan.muon_lr), adam]
    for optimizer in made:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return made


def train(model: nn.Module, items: Items, loss: Loss, plan: Plan, checkpoint: Path, name: str) -> dict[str, float]:
    """Train `model` in place on batches of `items`; returns {'tokens', 'step', 'minutes', 'loss'}.

    A checkpoint at `checkpoint` is resumed from, also one that is already finished.
    """
    device = next(model.parameters()).device
    made = optimizers(model, plan)
    state = {"tokens": 0, "step": 0, "minutes": 0.0, "loss": math.nan}
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        for optimizer, values in zip(made, saved["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        state = saved["state"]
    if plan.compile:
        compile_layers(model)

    def save() -> None:
        partial = checkpoint.with_suffix(".partial")
        values = [optimizer.state_dict() for optimizer in made]
        torch.save({"model": model.state_dict(), "optimizers": values, "state": state}, partial)
        partial.replace(checkpoint)  # an interrupted save never spoils the last good one

    def progress() -> float:
        return max(state["tokens"] / plan.tokens, state["minutes"] / plan.minutes)

    model.train()
    bar = tqdm(total=plan.tokens, initial=state["tokens"], unit="token", unit_scale=True, desc=name)
    source, context, last_save = None, 0, time.monotonic()
    while progress() < 1:
        began = time.monotonic()
        if context != plan.context_at(progress()):
            context = plan.context_at(progress())
            source = items(context, plan.seed + state["step"])
        rows = max(1, plan.tokens_per_step // context)
        batch = torch.stack([next(source) for _ in range(rows)]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=plan.bfloat16):
            value = loss(model, batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in made:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * plan.rate(progress(), state["step"])
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        seen = rows * context
        average = value.item() if math.isnan(state["loss"]) else 0.98 * state["loss"] + 0.02 * value.item()
        minutes = state["minutes"] + (time.monotonic() - began) / 60
        state = {"tokens": state["tokens"] + seen, "step": state["step"] + 1, "minutes": minutes, "loss": average}
        bar.update(seen)
        bar.set_postfix(loss=f"{average:.3f}", done=f"{progress():.0%}", refresh=False)
        if time.monotonic() - last_save > 60 * plan.checkpoint_minutes:
            save()
            last_save = time.monotonic()
    bar.close()
    save()
    model.eval()
    return state
