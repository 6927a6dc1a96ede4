"""A training loop that a stopped run resumes from: schedule, rehearsal, batches, checkpoint, progress bar."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .muon import Muon

OUTER = ("model.embed_tokens", "lm_head")  # matrices whose rows are tokens
LOOK_EVERY = 20  # steps between looks at the loss on a GPU: each look waits for it

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
    checkpoint_minutes: float = 3.0  # infinite: none at all, not even at the end
    compile: bool = True
    bfloat16: bool = False  # matrix products only; weights, sums and the optimizer stay float32
    seed: int = 0

    def within(self, minutes: float) -> Plan:
        """The same, ended after `minutes` if nothing else ends it before."""
        return replace(self, minutes=min(self.minutes, minutes))

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


def learn(model: nn.Module, loss: Loss, batch: Tensor, plan: Plan, at_once: int) -> Tensor:
    """Add a batch's gradient to the weights', so many rows at once. -> the mean loss, on the device"""
    total = torch.zeros((), device=batch.device)
    for part in batch.split(at_once):
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=plan.bfloat16):
            value = loss(model, part) * (len(part) / len(batch))
        value.backward()
        total += value.detach()
    return total


def rehearse(model: nn.Module, loss: Loss, batch: Tensor, plan: Plan) -> int:
    """Compile if wanted, try a step and forget it. -> how many rows fit at once

    Where compiling fails (no compiler, no Triton), one line says why, and everything after runs without.
    """
    at_once, compiled = len(batch), plan.compile
    while True:
        try:
            if compiled:
                compile_layers(model)
            learn(model, loss, batch[:at_once], plan, at_once)
            return at_once
        except torch.OutOfMemoryError:
            if at_once == 1:
                raise
            at_once = (at_once + 1) // 2
            tqdm.write(f"out of memory: {at_once} rows at once")
        except Exception as error:
            if not compiled:
                raise
            compiled = False
            torch.compiler.set_stance("force_eager")  # of this process: what failed here fails later too
            tqdm.write(f"not compiled, so slower: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
        finally:
            model.zero_grad(set_to_none=True)


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
    """Muon for the matrices inside the layers, AdamW for the embedding, the output and the gains."""
    matrices, rest = [], []
    for name, param in model.named_parameters():
        (matrices if param.ndim == 2 and not name.startswith(OUTER) else rest).append(param)
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

    def save() -> None:
        if plan.checkpoint_minutes == math.inf:
            return
        partial = checkpoint.with_suffix(".partial")
        values = [optimizer.state_dict() for optimizer in made]
        torch.save({"model": model.state_dict(), "optimizers": values, "state": state}, partial)
        partial.replace(checkpoint)  # an interrupted save never spoils the last good one

    def progress() -> float:
        return max(state["tokens"] / plan.tokens, state["minutes"] / plan.minutes)

    def read() -> None:
        """Bring the losses to the host, which waits for the device."""
        for value in torch.stack(unread).tolist() if unread else []:
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"the loss of {name} is {value} near step {state['step']}: lower the plan's muon_lr and adam_lr, "
                    f"and call again, which goes on from {checkpoint.name} if it is there"
                )
            state["loss"] = value if math.isnan(state["loss"]) else 0.98 * state["loss"] + 0.02 * value
        unread.clear()
        bar.set_postfix(loss=f"{state['loss']:.3f}", done=f"{progress():.0%}", refresh=False)

    model.train()
    bar = tqdm(total=plan.tokens, initial=state["tokens"], unit="token", unit_scale=True, desc=name, mininterval=0.5)
    source, context, at_once, unread = None, 0, 0, []
    last_save = mark = time.monotonic()
    while progress() < 1:
        if context != plan.context_at(progress()):
            context = plan.context_at(progress())
            source = items(context, plan.seed + state["step"])
        rows = max(1, plan.tokens_per_step // context)
        batch = torch.stack([next(source) for _ in range(rows)]).to(device, non_blocking=True)
        if at_once == 0:
            at_once = rehearse(model, loss, batch, plan) if plan.compile or device.type == "cuda" else rows
        unread.append(learn(model, loss, batch, plan, at_once))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in made:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * plan.rate(progress(), state["step"])
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        now = time.monotonic()
        state["tokens"] += rows * context
        state["step"] += 1
        state["minutes"] += (now - mark) / 60  # saving and compiling are part of it
        mark = now
        bar.update(rows * context)
        if device.type == "cpu" or len(unread) == LOOK_EVERY:
            read()
        if now - last_save > 60 * plan.checkpoint_minutes:
            read()
            save()
            last_save = now
    read()
    bar.close()
    save()
    model.eval()
    return state
