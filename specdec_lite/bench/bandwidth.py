"""What this machine's memory and arithmetic give: bandwidth, and matrix products by precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from ..engines.cpu_kernels import packed
from .timing import TURN, TimedCall, idle, interleave, repeated, second_call

LEAST, MOST = 1 << 28, 1 << 31  # bytes of the working set: at least 256 MiB, at most 2 GiB
SIZES = (128, 256, 512, 1024, 2048, 4096, 8192)  # of square matrices


def last_level_cache(device: torch.device) -> int | None:
    """Bytes of the largest cache before the memory; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    units = {"K": 1 << 10, "M": 1 << 20}
    texts = [path.read_text().strip() for path in sizes]
    return max((int(text[:-1]) * units[text[-1]] for text in texts if text[-1:] in units), default=None)


def working_set(device: torch.device) -> int:
    """Bytes that no cache holds: eight times the last one."""
    return max(LEAST, min(MOST, 8 * (last_level_cache(device) or 0)))


def streams(device: torch.device) -> dict[str, TimedCall]:
    """Calls that move a working set and return the bytes moved: "read" adds it up, "copy" reads and writes.

    They are runners for `interleave`, to be timed beside whatever is compared with them.
    """
    source = torch.ones(working_set(device) // 4, device=device)
    target = torch.empty_like(source)
    moves = {"read": (source.sum, source.nbytes), "copy": (lambda: target.copy_(source), 2 * source.nbytes)}
    return {name: repeated(move, size, idle(device))[0] for name, (move, size) in moves.items()}


def throughput(device: torch.device, precisions: Mapping[str, torch.dtype], rounds: int = 5) -> dict[str, float]:
    """Operations a second of a large matrix product, for each precision that runs here; medians, in turn."""
    every = {name: made for each, dtype in precisions.items() for name, made in products(device, each, dtype).items()}
    timings = interleave(every, rounds=rounds, warm_up=1, wait=idle(device))
    return {name: median(timings.rates(name)) for name in every}


def products(device: torch.device, name: str, dtype: torch.dtype) -> dict[str, TimedCall]:
    """torch's own product and, where the lean engine packs large weights, its own. Empty where the dtype does not run.

    Each is a runner that returns its operations.
    """
    kinds = {name: lambda weight: lambda x: x @ weight.t()}
    if device.type == "cpu" and dtype == torch.float32:
        kinds[f"{name} packed"] = lambda weight: packed(weight, None)
    made = {kind: _product(device, dtype, make) for kind, make in kinds.items()}
    return {kind: each for kind, each in made.items() if each is not None}


def _product(
    device: torch.device, dtype: torch.dtype, make: Callable[[Tensor], Callable[[Tensor], Tensor] | None]
) -> TimedCall | None:
    """A product as large as takes long enough: some precisions are a thousand times slower than others."""
    wait, run, size = idle(device), None, 0
    try:
        for size in SIZES:
            x, weight = (torch.full((size, size), 1 / 3, device=device, dtype=dtype) for _ in range(2))
            run = make(weight)
            if run is not None and second_call(lambda run=run, x=x: run(x), wait) >= TURN:
                break
    except (RuntimeError, TypeError):  # no such type, or no kernel for it
        return None
    if run is None:
        return None

    def multiply(case: int, turn: int) -> int:
        run(x)
        return 2 * size**3

    return multiply
