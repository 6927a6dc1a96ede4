"""From the host to the device without waiting for it.

A round knows some small things on the host: the last tokens, how far a cache rewinds. A copy from ordinary
memory makes the host wait until a GPU has done all it was given before; one from pinned memory queues up
behind it like any other work.
"""

from __future__ import annotations

import torch
from torch import Tensor


def send(values: list, device: torch.device) -> Tensor:
    """These whole numbers, or lists of them of one length, on the device."""
    return dispatch(torch.tensor(values, dtype=torch.long, device="cpu"), device)


def dispatch(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host, on the device. torch keeps its pinned memory until that was read."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
