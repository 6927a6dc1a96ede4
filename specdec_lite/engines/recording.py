"""Two ways to record what a pass does and to do it again without the Python around it.

Starting an operation costs the host some microseconds, and a small pass on a GPU is over before the next
one is started. A CUDA graph holds all of them, arguments and addresses included, and starts them at once.
A tape does the same with torch's own operations. It saves nothing, but it shows on any machine what a
recording is, and whether a pass can be recorded: whatever the host decided while it was made stays decided.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Replay = Callable[[], None]
WARM_UP = 2  # passes before a recording: kernels are chosen then, and their workspaces made


class Recorder(Protocol):
    """Records a call that reads and writes tensors which stay where they are."""

    def __call__(self, call: Callable[[], Tensor]) -> tuple[Replay, Tensor]:
        """-> what does it again, and where its result will lie.

        Raises:
            RuntimeError: the call reads values on the host, which a recording could not do again.
        """


def recorder_for(device: torch.device) -> Recorder:
    """CUDA graphs on a GPU, a tape on a CPU.

    Raises:
        ValueError: another device.
    """
    if device.type == "cuda":
        return CudaGraphs(device)
    if device.type == "cpu":
        return record_tape
    raise ValueError(
        f"the graph engine replays CUDA graphs (or, on a CPU, a tape), and there are none on {device.type}: "
        "use engine='eager'"
    )


class CudaGraphs:
    """Records CUDA graphs that share one pool of memory.

    Sharing is safe because they run one after another on one stream and every result is copied at once.
    The pool lasts as long as one of them.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool: Any = None  # a handle, once something was recorded

    def __call__(self, call: Callable[[], Tensor]) -> tuple[Replay, Tensor]:
        with torch.cuda.device(self.device):
            here, aside = torch.cuda.current_stream(), side_stream(self.device)
            aside.wait_stream(here)
            try:
                with torch.cuda.stream(aside):
                    for _ in range(WARM_UP - 1):
                        call()
                    with Strict():  # a capture that fails would leave its stream and its pool behind
                        call()
            finally:
                here.wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
                    result = call()
            finally:
                torch.cuda.set_stream(here)
            self.pool = graph.pool()
        return graph.replay, result


@cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings: a product keeps a workspace for each stream that it was ever run on."""
    return torch.cuda.Stream(device)


def record_tape(call: Callable[[], Tensor]) -> tuple[Replay, Tensor]:
    """Note every operation of torch; replayed, each writes where it wrote the first time."""
    for _ in range(WARM_UP):
        call()
    with Tape() as tape:
        result = call()
    return tape.replay, result


@dataclass(frozen=True)
class Step:
    """One operation of a tape."""

    function: Any  # an operation of torch, such as aten.mm.default
    args: Any
    kwargs: Any
    made: list[Tensor]  # where it wrote, or views of what it was given

    @property
    def computes(self) -> bool:
        """Whether it did anything to numbers, rather than look at given ones in another way."""
        given = {each.untyped_storage().data_ptr() for each in tensors((self.args, self.kwargs))}
        return self.function._schema.is_mutable or any(
            each.untyped_storage().data_ptr() not in given for each in self.made
        )


class Strict(TorchDispatchMode):
    """Refuses, inside the block, operations that no recording could do again."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if reads_values(function, args):
            raise RuntimeError(f"{function} reads values on the host, and a recording could not do that again")
        if changes_device(args, kwargs):
            raise RuntimeError(f"{function} brings tensors to another device, and a recording could not do that again")
        return function(*args, **kwargs)


class Tape(Strict):
    """The operations inside the block, with the very tensors that they were given and have made."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = super().__torch_dispatch__(function, types, args, kwargs)
        self.steps.append(Step(function, args, kwargs or {}, tensors(made)))
        return made

    def replay(self) -> None:
        for step in self.steps:
            for old, new in zip(step.made, tensors(step.function(*step.args, **step.kwargs)), strict=True):
                if old.data_ptr() != new.data_ptr():  # neither a view nor written in place
                    old.copy_(new)


def reads_values(function: Any, args: Any) -> bool:
    """Whether the shape or the value of what an operation returns depends on what its tensors hold."""
    if function is torch.ops.aten.index.Tensor:  # picks by a mask, or by places
        return any(each.dtype in (torch.bool, torch.uint8) for each in tensors(args[1]))
    if function is torch.ops.aten.one_hot.default:  # with as many classes as it is told, or as there are
        return len(args) < 2 or args[1] < 0
    return bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(function.tags))


def changes_device(args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether tensors come from one device to another: as copies, or as places to look up."""
    given, asked = tensors((args, kwargs)), kwargs.get("device")
    mixed = len({each.device.type for each in given if each.ndim > 0}) > 1  # a single number may be the host's
    return mixed or (asked is not None and any(each.device.type != torch.device(asked).type for each in given))


def tensors(made: Any) -> list[Tensor]:
    return [each for each in tree_leaves(made) if isinstance(each, Tensor)]
