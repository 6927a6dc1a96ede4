"""A pretended GPU, for machines without one: `make test-pretended-gpu` runs the tests of GPUs on it.

A CUDA graph is a `Tape`, and while one is made nothing comes from the host or goes there. Streams do nothing. So
what is on a wrong device, a wait too many and a pass that cannot be recorded are found; speed, memory, kernels and
their rounding are not pretended. tests/test_pretended_gpu.py holds it to what a real one does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from pretended_tensors import CPU, DRIVER


class Stream:
    def __init__(self, device: Any = None) -> None: ...

    def wait_stream(self, other: Stream) -> None: ...


class Event:
    def __init__(self, enable_timing: bool = False) -> None: ...

    def record(self, stream: Stream | None = None) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, other: Event) -> float:
        return 1000 * (other.at - self.at)


class Graph:
    def pool(self) -> int:
        return 1

    def replay(self) -> None:
        self.tape.replay()


@contextmanager
def capture(graph: Graph, pool: int | None = None, capture_error_mode: str = "global") -> Iterator[None]:
    from specdec_lite.engines.recording import Tape

    before, DRIVER.stream, DRIVER.capturing = DRIVER.stream, Stream(), True
    try:
        with Tape() as graph.tape:
            yield
    finally:
        DRIVER.capturing = False
    DRIVER.stream = before  # but not after an error: a capture that fails leaves its own behind


@contextmanager
def on_stream(stream: Stream) -> Iterator[None]:
    before, DRIVER.stream = DRIVER.stream, stream
    try:
        yield
    finally:
        DRIVER.stream = before


class Generator(torch.Generator):
    """Draws for the GPU, on the CPU."""

    def __new__(cls, device: Any = CPU) -> Generator:
        return super().__new__(cls, CPU)


def install() -> None:
    """From here on this process has a GPU."""
    os.environ["TORCHDYNAMO_DISABLE"] = "1"  # what is compiled would go past the driver
    properties = SimpleNamespace(
        name="a pretended GPU", total_memory=80 << 30, major=9, minor=0, L2_cache_size=50 << 20
    )
    instead: dict[str, Any] = dict(
        is_available=lambda: True, is_initialized=lambda: True, _lazy_init=lambda: None, device_count=lambda: 1,
        current_device=lambda: 0, device=lambda _: nullcontext(), is_bf16_supported=lambda *_: True,
        get_device_name=lambda *_: properties.name, get_device_properties=lambda *_: properties,
        get_device_capability=lambda *_: (properties.major, properties.minor),
        mem_get_info=lambda *_: (2 << 30, properties.total_memory), empty_cache=lambda: None,
        get_rng_state=lambda *_: torch.zeros(1), set_rng_state=lambda *_: None, manual_seed_all=lambda _: None,
        Stream=Stream, Event=Event, CUDAGraph=Graph, graph=capture, stream=on_stream, synchronize=lambda *_: None,
        current_stream=lambda *_: DRIVER.stream, set_stream=lambda stream: setattr(DRIVER, "stream", stream),
        set_sync_debug_mode=lambda mode: setattr(DRIVER, "debug", mode),
    )  # fmt: skip
    for name, value in instead.items():
        setattr(torch.cuda, name, value)
    torch.Generator, DRIVER.stream = Generator, Stream()
    torch.backends.cuda.enable_cudnn_sdp = lambda enabled: None
    DRIVER.__enter__()


def pytest_configure(config: Any) -> None:
    """As a plugin of pytest."""
    if not torch.cuda.is_available():
        install()
