"""What a GPU refuses and waits for: so the pretended one is worth something. A real one has to agree."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from test_synchronisation import waits_for_a_gpu
from torch import Tensor, nn

from specdec_lite.engines.recording import WARM_UP, recorder_for
from specdec_lite.transfer import send

pytestmark = pytest.mark.gpu
Call = Callable[[Tensor], object]


@pytest.fixture
def x() -> Tensor:
    return torch.arange(4.0, device="cuda")


MIXED: dict[str, Call] = {
    "sum": lambda x: x + torch.ones(4),
    "where": lambda x: torch.where(x > 0, x, torch.ones(4)),
    "cat": lambda x: torch.cat([x, torch.ones(4)]),
    "gather": lambda x: x.gather(0, torch.zeros(1, dtype=torch.long)),
    "embedding": lambda x: nn.functional.embedding(torch.zeros(1, dtype=torch.long), x.view(2, 2)),
    "layer": lambda x: nn.Linear(4, 4)(x),
    "places": lambda x: torch.ones(4)[x.long()],
}
ALONE: dict[str, Call] = {
    "sum": lambda x: x + torch.tensor(2.0),
    "made there": lambda x: x + x.new_zeros(4) + torch.zeros_like(x) + torch.ones(4, device="cuda"),
    "moved": lambda x: x + torch.ones(4).to(x.device),
    "layer": lambda x: copy.deepcopy(nn.Linear(4, 4).to(x.device))(x),
}


@pytest.mark.parametrize("name", MIXED)
def test_tensors_of_two_devices_do_not_mix(name: str, x: Tensor) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        MIXED[name](x)


@pytest.mark.parametrize("name", ALONE)
def test_what_lies_there_stays_there(name: str, x: Tensor) -> None:
    assert ALONE[name](x).device == x.device == torch.device("cuda", 0)
    assert x.is_cuda and isinstance(x.shape, torch.Size)


def test_other_devices_are_what_they_are(x: Tensor) -> None:
    assert torch.ones(2, device="meta").device.type == "meta"
    assert x.new_ones(2, device="cpu").device.type == torch.ones(2).device.type == "cpu"


WAITING: dict[str, Call] = {
    "item": lambda x: x.sum().item(),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "bool": lambda x: 1 if x.sum() > 0 else 0,
    "slice": lambda x: x[: x.long().max()],
    "mask": lambda x: x[x > 1],
    "nonzero": lambda x: x.nonzero(),
    "list of places": lambda x: x[[0, 2]],
    "places of the host": lambda x: x[torch.tensor([0, 2])],
    "a number of the host": lambda x: torch.tensor(3.0, device="cuda"),
    "numbers of the host": lambda x: torch.ones(3).to(x.device),
    "a copy into it": lambda x: x.copy_(torch.ones(4)),
}
QUEUED: dict[str, Call] = {
    "arithmetic": lambda x: (x * 2 + 1).softmax(-1).cumsum(-1)[1:, None].argmax(),
    "places": lambda x: x[torch.zeros(2, dtype=torch.long, device="cuda")],
    "in place": lambda x: x.add_(1).clamp_(0, 2),
    "a set value": lambda x: x.__setitem__(slice(0, 2), 5.0),
    "sent": lambda x: x[send([0, 2], x.device)],
}


@pytest.mark.parametrize("name", WAITING)
def test_the_host_waits_and_no_graph_holds_that(name: str, x: Tensor) -> None:
    assert waits_for_a_gpu(lambda: WAITING[name](x)) == 1
    stream = torch.cuda.current_stream()
    with pytest.raises(RuntimeError):
        recorder_for(x.device)(lambda: x + bool(WAITING[name](x) is not None))
    assert torch.cuda.current_stream() == stream


@pytest.mark.parametrize("name", QUEUED)
def test_the_host_goes_on(name: str, x: Tensor) -> None:
    assert waits_for_a_gpu(lambda: QUEUED[name](x)) == 0


def test_a_graph_does_it_again_with_the_numbers_of_now(x: Tensor) -> None:
    calls = []

    def call() -> Tensor:
        calls.append(1)
        return (x * 2)[1:] + x[0]

    replay, result = recorder_for(x.device)(call)
    x.copy_(torch.tensor([1.0, 5, 6, 7]))
    replay()
    assert result.tolist() == [11, 13, 15]
    assert len(calls) == WARM_UP + 1
