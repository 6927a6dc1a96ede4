"""Whether a module is still what an engine was made for.

An engine may hold second copies of weights, and a recording holds addresses: both are of the module as it was. So it
is looked at again when a text begins: a walk over its parts, and a product of every copied weight with one vector,
which reads the weight once. Together that takes about as long as one forward over one token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registry

from .attention import registered_sdpa

GROWING = ("dynamic", "longrope")  # rotary scalings whose module rewrites its own frequencies at every forward
HALF = (torch.float16, torch.bfloat16)
OF_EVERY = frozenset(vars(nn.Module()))  # what torch keeps in every module


class Snapshot:
    """A module's parts, their settings, hooks and addresses, and the values of the weights that are held twice.

    Args:
        copied: weights of the module [outputs, inputs] or [width] of which the engine holds a copy.
    """

    def __init__(self, module: nn.Module, copied: Sequence[Tensor] = ()) -> None:
        self.parts = [Part(each) for each in module.modules()]
        self.config, self.hooks = settings(module), everywhere()
        self.digest = Digest(copied)
        self.values = self.digest.take()

    def changed(self, module: nn.Module) -> bool:
        """Whether an engine for this module would be another one today."""
        return (
            self.parts[0].module is not module
            or self.config != settings(module)
            or self.hooks != everywhere()
            or any(part.changed() for part in self.parts)
            or not torch.equal(self.values, self.digest.take())
        )


class Part:
    """One submodule, without its children's insides."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.kind, self.forward = module, type(module), type(module).forward
        self.attributes = compared(vars(module))
        self.containers = containers(module)
        self.children, self.hooks = list(module._modules.values()), listeners(module)
        self.tensors = tensors(module)
        self.places = list(map(place, self.tensors))

    def changed(self) -> bool:
        now = vars(self.module)
        held = tensors(self.module)
        return (
            type(self.module) is not self.kind
            or self.kind.forward is not self.forward
            or self.children != list(now["_modules"].values())
            or self.hooks != listeners(self.module)
            or list(map(id, held)) != list(map(id, self.tensors))
            or self.places != list(map(place, held))
            or set_otherwise(compared(now), self.attributes)
            or self.containers != containers(self.module)
        )


def compared(attributes: dict[str, Any]) -> dict[str, Any]:
    """Of a rotary module that rewrites its frequencies at every forward, only the factor that it leaves as it is."""
    if not grows(attributes):
        return dict(attributes)
    return {name: value for name, value in attributes.items() if name.endswith("attention_scaling")}


def set_otherwise(now: dict[str, Any], was: dict[str, Any]) -> bool:
    """Whether a setting of a part has another value. Its other attributes are notes that it makes for itself."""
    try:
        if now == was:
            return False
    except Exception:  # notes that can't be compared, such as tensors
        pass
    changed = ((now.get(name), was.get(name), name) for name in now.keys() | was.keys())
    return any(
        new is not old and (name == "forward" or (plain(old) and (plain(new) or old is not None))) and noted(new) != old
        for new, old, name in changed
    )


def plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


class Same:
    """Equal to what holds the same object, whatever that says of equality."""

    def __init__(self, held: object) -> None:
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.held is self.held

    __hash__ = None  # type: ignore[assignment]  # as Python marks what has no hash


def noted(value: Any) -> Any:
    """A copy to compare with later: containers with all that is in them, of any other thing which one it is."""
    if isinstance(value, dict):
        return {key: noted(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [noted(each) for each in value]
    return value if plain(value) else Same(value)


def is_setting(value: Any) -> bool:
    """Whether such a note has nothing but plain values in it."""
    if isinstance(value, dict | list):
        return bool(value) and all(map(is_setting, value.values() if isinstance(value, dict) else value))
    return plain(value)


def containers(module: nn.Module) -> dict[str, Any]:
    """Lists and dicts of plain values that one part keeps, as adapters keep their scales."""
    kept = {key: each for key, each in vars(module).items() if key not in OF_EVERY}
    found = {key: noted(each) for key, each in kept.items() if isinstance(each, dict | list | tuple)}
    return {key: note for key, note in found.items() if is_setting(note)}


def tensors(module: nn.Module) -> list[Tensor]:
    """Parameters and buffers of one part, except what it rewrites by itself."""
    held = vars(module)
    found = [*held["_parameters"].values(), *held["_buffers"].values()]
    return [] if not found or grows(held) else [each for each in found if each is not None]


def grows(attributes: dict[str, Any]) -> bool:
    kind = attributes.get("rope_type")
    return kind is not None and any(name in str(kind) for name in GROWING)


def place(tensor: Tensor) -> tuple[Any, ...]:
    try:
        at = tensor.data_ptr()
    except RuntimeError:  # a tensor without memory of its own
        at = id(tensor)
    return at, tensor.dtype, tensor.shape, tensor.stride()


def listeners(module: nn.Module) -> list[Any]:
    """Hooks of a forward."""
    return [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]


def everywhere() -> list[Any]:
    """Global forward hooks, and an attention function that was registered for all models."""
    hooks = [*registry._global_forward_hooks.values(), *registry._global_forward_pre_hooks.values()]
    return hooks if (attention := registered_sdpa()) is None else [*hooks, attention]


def settings(module: nn.Module) -> dict[str, Any]:
    """What the configuration says now, to compare with later (a quantisation's object says nothing that can be)."""
    config = getattr(module, "config", None)
    text = config.get_text_config() if config is not None and hasattr(config, "get_text_config") else config
    held = {} if text is None else vars(text)
    return {
        name: noted(value) for name, value in held.items() if plain(value) or isinstance(value, dict | list | tuple)
    }


class Digest:
    """A number for every output of every weight, which a change of any of its values changes."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        vectors: dict[tuple[Any, ...], Tensor] = {}
        self.steps: list[tuple[Tensor, Tensor | None]] = []
        for each in weights:
            key = each.shape[-1], torch.float32 if each.dtype in HALF else each.dtype, each.device
            if each.ndim > 1 and key not in vectors:
                drawn = torch.randn(key[0], generator=torch.Generator().manual_seed(0), device="cpu")
                away = drawn.sign() * (0.5 + drawn.abs())  # from 0, where a change would be lost in rounding
                vectors[key] = away.to(key[2], key[1])  # [inputs]
            self.steps.append((each.detach(), vectors[key] if each.ndim > 1 else None))

    @torch.no_grad()
    def take(self) -> Tensor:
        """-> [all outputs], as whole numbers, of which each equals itself."""
        found = [weight if vector is None else wide(weight).mv(vector) for weight, vector in self.steps]
        values = torch.cat([each.flatten() for each in found]) if found else torch.zeros(0, device="cpu")
        return values.view({8: torch.int64, 4: torch.int32, 2: torch.int16}[values.element_size()])


def wide(weight: Tensor) -> Tensor:
    return weight.float() if weight.dtype in HALF else weight
