"""What this machine's memory and arithmetic give: bandwidth, and matrix products by precision."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from ..engines.packing import blocks, by_rows
from .measure import Contestant, idle, interleave

LEAST, MOST = 1 << 28, 1 << 31  # bytes of the working set: at least 256 MiB, at most 2 GiB
TURN = 0.02  # seconds that a product, or moves of memory, should take to be timed well
SIZES = (128, 256, 512, 1024, 2048, 4096, 8192)  # of square matrices


def last_level_cache(device: torch.device) -> int | None:
    """Bytes of the largest cache before the memory; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    units = {"K": 1 << 10, "M": 1 << 20}
    told = [path.read_text().strip() for path in sizes]
    return max((int(text[:-1]) * units[text[-1]] for text in told if text[-1:] in units), default=None)


def working_set(device: torch.device) -> int:
    """Bytes that no cache holds: eight times the last one."""
    return max(LEAST, min(MOST, 8 * (last_level_cache(device) or 0)))


def streams(device: torch.device) -> dict[str, tuple[Contestant, int]]:
    """Calls that move a working set, and the bytes that each moves: "read" adds it up, "copy" reads and writes.

    They are contestants for `interleave`, to be timed beside whatever is compared with them.
    """
    source = torch.ones(working_set(device) // 4, device=device)
    target = torch.empty_like(source)
    moves = {"read": (source.sum, source.nbytes), "copy": (lambda: target.copy_(source), 2 * source.nbytes)}
    return {name: _repeated(move, size, device) for name, (move, size) in moves.items()}


def _repeated(move: Callable[[], Tensor], size: int, device: torch.device) -> tuple[Contestant, int]:
    """As often as makes a turn long, so that starting and ending it count for nothing. `size`: bytes that move."""
    count = max(1, round(TURN / _seconds(move, idle(device))))

    def turn(case: int, turn: int) -> int:
        for _ in range(count):
            move()
        return count * size

    return turn, count * size


def throughput(device: torch.device, precisions: Mapping[str, torch.dtype], rounds: int = 5) -> dict[str, float]:
    """Operations a second of a large matrix product, for each precision that runs here; medians, in turn."""
    every = {name: made for each, dtype in precisions.items() for name, made in products(device, each, dtype).items()}
    timings = interleave(every, rounds=rounds, warm_up=1, wait=idle(device))
    return {name: median(timings.rates(name)) for name in every}


def products(device: torch.device, name: str, dtype: torch.dtype) -> dict[str, Contestant]:
    """torch's own product and, where the lean engine packs large weights, its own. Empty where the dtype does not run.

    Each is a contestant that returns its operations.
    """
    kinds = {name: lambda weight: lambda x: x @ weight.t()}
    if device.type == "cpu" and dtype == torch.float32:
        kinds[f"{name} packed"] = lambda weight: by_rows(weight, None) or blocks(weight, None)
    made = {kind: _product(device, dtype, make) for kind, make in kinds.items()}
    return {kind: each for kind, each in made.items() if each is not None}


def _product(
    device: torch.device, dtype: torch.dtype, make: Callable[[Tensor], Callable[[Tensor], Tensor] | None]
) -> Contestant | None:
    """A product as large as takes long enough: some precisions are a thousand times slower than others."""
    wait, run, size = idle(device), None, 0
    try:
        for size in SIZES:
            x, weight = (torch.full((size, size), 1 / 3, device=device, dtype=dtype) for _ in range(2))
            run = make(weight)
            if run is not None and _seconds(lambda run=run, x=x: run(x), wait) >= TURN:
                break
    except (RuntimeError, TypeError):  # no such type, or no kernel for it
        return None
    if run is None:
        return None

    def multiply(case: int, turn: int) -> int:
        run(x)
        return 2 * size**3

    return multiply


def _seconds(call: Callable[[], Tensor], wait: Callable[[], None]) -> float:
    call()
    wait()
    began = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - began
