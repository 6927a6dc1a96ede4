"""Tensors that say they are on a GPU and keep their numbers on the CPU, and the driver that all calls go through.

Like a GPU's they are not to be mixed with the CPU's, and the host waits when it wants to know what they hold.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
ASKS = {  # what the host waits for
    torch.equal, torch.allclose, torch.nonzero, torch.masked_select, Tensor.equal, Tensor.allclose, Tensor.nonzero,
    Tensor.masked_select, Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__int__, Tensor.__float__,
    Tensor.__index__,
}  # fmt: skip
COPIES = {torch.tensor, torch.as_tensor, Tensor.new_tensor}  # numbers of the host


class Pretended(Tensor):
    """A tensor of the GPU. What is done with it is done with `held`, which lies on the CPU."""

    held: Tensor

    @staticmethod
    def of(held: Tensor) -> Pretended:
        made = Tensor._make_wrapper_subclass(Pretended, held.shape, dtype=held.dtype, device=GPU)
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise NotImplementedError(f"{function} came past the driver")


class Driver(TorchFunctionMode):
    """Every call of torch comes by here."""

    capturing = False
    stream: Any = None
    debug = "default"

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, given = dict(kwargs or {}), []
        lowered, options = (
            within(each, lambda tensor: given.append(tensor) or held(tensor)) for each in (args, kwargs)
        )
        ours = [each for each in given if isinstance(each, Pretended)]
        if function in OWN and (ours or function in (Tensor.to, Tensor.cuda, Tensor.pin_memory)):
            return OWN[function](*args, **kwargs)
        to_gpu = bool(ours)
        if kwargs.get("device") is not None:
            to_gpu = on_gpu(kwargs["device"])
            options["device"] = CPU if to_gpu else kwargs["device"]
        self.check(function, given, args, to_gpu)
        made = function(*lowered, **options)
        if not to_gpu:
            return made
        known = {id(each.held): each for each in ours}  # what is changed in place stays what it is
        return within(made, lambda each: known[id(each)] if id(each) in known else Pretended.of(each))

    def check(self, function: Any, given: list[Tensor], args: Any, to_gpu: bool) -> None:
        name = getattr(function, "__name__", str(function))
        if to_gpu and function in COPIES:
            self.wait(f"{name} of the host's numbers")
        if not any(isinstance(each, Pretended) for each in given):
            return
        if any(not isinstance(each, Pretended) and each.ndim > 0 for each in given):  # a single number may be the CPU's
            if function not in (Tensor.__getitem__, Tensor.__setitem__) or not isinstance(args[0], Pretended):
                raise RuntimeError(f"Expected all tensors to be on the same device, but {name} has cuda:0 and cpu")
            self.wait("places that lie on the CPU")
        if function in ASKS:
            self.wait(name)
        if function in (Tensor.__getitem__, Tensor.__setitem__) and any(map(asks, parts(args[1]))):
            self.wait("places that the host has, or has to know")

    def wait(self, why: str) -> None:
        """The host waits for the GPU, which it cannot while a graph is made."""
        if self.capturing:
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({why})")
        if self.debug != "default":
            warnings.warn(f"called a synchronizing CUDA operation ({why})", stacklevel=2)


def on_gpu(device: Any) -> bool:
    return torch.device(device).type == "cuda"


def within(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """The same with its tensors changed, wherever in lists and the like they are."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, slice):
        return slice(*(within(each, change) for each in (value.start, value.stop, value.step)))
    if isinstance(value, dict):
        return {name: within(each, change) for name, each in value.items()}
    if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        return type(value)([within(each, change) for each in value])
    return value


def held(tensor: Tensor) -> Tensor:
    return tensor.held if isinstance(tensor, Pretended) else tensor


def parts(index: Any) -> tuple:
    return index if isinstance(index, tuple) else (index,)


def asks(part: Any) -> bool:
    """Whether a part of an index is numbers of the host, or is needed there."""
    if isinstance(part, slice):
        return any(isinstance(end, Tensor) for end in (part.start, part.stop, part.step))
    return isinstance(part, list) or (isinstance(part, Tensor) and (part.ndim == 0 or part.dtype == torch.bool))


# What goes from one device to the other, and what a wrapper has to say itself


def to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    device, dtype = kwargs.get("device") or tensor.device, kwargs.get("dtype") or tensor.dtype
    for each in args:
        device = each.device if isinstance(each, Tensor) else each if isinstance(each, str | torch.device) else device
        dtype = each.dtype if isinstance(each, Tensor) else each if isinstance(each, torch.dtype) else dtype
    there, here = on_gpu(device), isinstance(tensor, Pretended)
    if there == here:
        made = held(tensor).to(dtype, copy=kwargs.get("copy", False))
        return tensor if made is held(tensor) else Pretended.of(made) if there else made
    if DRIVER.capturing or not kwargs.get("non_blocking"):
        DRIVER.wait(f"a copy to {device}")
    made = held(tensor).to(dtype, copy=True)
    return Pretended.of(made) if there else made


def copy_(tensor: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    if isinstance(tensor, Pretended) != isinstance(source, Pretended) and (DRIVER.capturing or not non_blocking):
        DRIVER.wait("a copy between devices")
    held(tensor).copy_(held(source))
    return tensor


def deepcopy(tensor: Pretended, memo: dict[int, Any]) -> Tensor:
    if id(tensor) not in memo:
        made = Pretended.of(tensor.held.detach().clone().requires_grad_(tensor.held.requires_grad))
        memo[id(tensor)] = made
        if isinstance(tensor, torch.nn.Parameter):
            made._is_param = True
    return memo[id(tensor)]


def numpy(tensor: Pretended, **_: Any) -> None:
    raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")


OWN: dict[Any, Callable[..., Any]] = {
    Tensor.to: to,
    Tensor.cuda: lambda tensor, *_, **kwargs: to(tensor, GPU, **kwargs),
    Tensor.cpu: lambda tensor, **_: to(tensor, CPU),
    Tensor.pin_memory: lambda tensor, *_: tensor,
    Tensor.copy_: copy_,
    Tensor.numpy: numpy,
    Tensor.__deepcopy__: deepcopy,
    Tensor.__iter__: lambda tensor: iter([Pretended.of(each) for each in tensor.held.unbind(0)]),
    Tensor.device.__get__: lambda *_: GPU,
    Tensor.is_cuda.__get__: lambda *_: True,
    Tensor.is_cpu.__get__: lambda *_: False,
    torch._has_compatible_shallow_copy_type: lambda *_: False,  # so a module gets new parameters
}

DRIVER = Driver()
