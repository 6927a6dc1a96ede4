"""Data sheets: complete, dense, and with a source for each."""

from __future__ import annotations

import dataclasses
import re

import pytest

from specdec_lite.bench.data_sheets import DEVICES, PRECISIONS

NVIDIA = ("T4", "A100 80GB SXM", "H100 SXM", "H200 SXM", "B200", "RTX 4090")


def test_those_that_people_ask_for_are_there() -> None:
    assert set(NVIDIA) < set(DEVICES)
    assert any("Apple M" in name for name in DEVICES)
    assert any("laptop" in name for name in DEVICES)


@pytest.mark.parametrize("name", DEVICES)
def test_every_entry_is_complete_and_cannot_be_changed(name: str) -> None:
    device = DEVICES[name]
    assert device.name == name
    assert device.bandwidth_gb_s > 10
    assert device.memory_gb > 1
    assert device.tflops
    assert set(device.tflops) <= set(PRECISIONS)
    assert all(value > 0 for value in device.tflops.values())
    assert re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", device.date)
    assert len(device.source) > 20
    assert "https://" in device.checked
    with pytest.raises(dataclasses.FrozenInstanceError):
        device.memory_gb = 0


@pytest.mark.parametrize("name", DEVICES)
def test_a_shorter_precision_is_never_slower(name: str) -> None:
    tflops = DEVICES[name].tflops
    known = [tflops[precision] for precision in PRECISIONS if precision in tflops]
    assert known == sorted(known)


@pytest.mark.parametrize(("name", "sparse"), [("A100 80GB SXM", 624), ("H100 SXM", 1979), ("H200 SXM", 1979),
                                              ("B200", 4500), ("RTX 4090", 330)])  # fmt: skip
def test_throughput_is_that_of_dense_matrices(name: str, sparse: float) -> None:
    """Half of what the vendor prints with sparsity."""
    assert DEVICES[name].tflops["bfloat16"] == pytest.approx(sparse / 2, rel=0.01)


def test_the_ridge_is_throughput_over_bandwidth() -> None:
    assert DEVICES["H100 SXM"].ridge("bfloat16") == pytest.approx(989.4e12 / 3.35e12)
    with pytest.raises(ValueError, match="T4 has no figure for 'bfloat16': choose one of"):
        DEVICES["T4"].ridge("bfloat16")
