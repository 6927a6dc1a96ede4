"""Models on paper are the models that transformers builds, and rows are free exactly as far as is said."""

from __future__ import annotations

import json
import time

import pytest
import torch

import specdec_lite as sd
from specdec_lite.bench.data_sheets import DEVICES, LLAMAS, Blueprint
from specdec_lite.bench.headroom import MOST, batched, cost, free_batch, free_k, held
from specdec_lite.bench.passes import Passes
from specdec_lite.bench.roofline_model import Ceiling, shape_of
from specdec_lite.bench.timing import Timings
from specdec_lite.loading.random_weights import random_llama
from specdec_lite.models import TransformersModel
from specdec_lite.viz import RooflineExplorer, pass_table, pass_times, two_needs
from specdec_lite.viz.pass_times import meeting
from specdec_lite.viz.roofline_explorer import BATCHES, CONTEXTS, HERE, PRECISIONS

PUBLISHED = {
    "Llama 1B": 1_235_814_400,
    "Llama 3B": 3_212_749_824,
    "Llama 8B": 8_030_261_248,
    "Llama 70B": 70_553_706_496,
}


@pytest.mark.parametrize("name", LLAMAS)
def test_a_llama_on_paper_has_the_weights_of_the_real_one(name: str) -> None:
    module = random_llama(LLAMAS[name], torch.device("meta"))
    assert LLAMAS[name].shape().parameters == sum(each.numel() for each in module.parameters()) == PUBLISHED[name]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("bits", "dtype"), [(32, torch.float32), (16, torch.bfloat16)])
def test_a_model_on_paper_is_counted_as_the_model_itself(tied: bool, bits: int, dtype: torch.dtype) -> None:
    paper = Blueprint("tiny", 2, 16, 24, 4, 2, 8, 40, tied, "")
    module = random_llama(paper, torch.device("cpu"), dtype)
    assert paper.shape(bits) == shape_of(TransformersModel(module))


def test_short_weights_leave_the_cache_as_it_is() -> None:
    four, sixteen = (LLAMAS["Llama 8B"].shape(bits) for bits in (4, 16))
    assert four.cache_bytes == sixteen.cache_bytes
    assert four.weight_bytes == pytest.approx(sixteen.weight_bytes / 4, rel=1e-3)


H100 = Ceiling(3350e9, 989.4e12)
EIGHT = LLAMAS["Llama 8B"].shape()


def test_a_batch_shares_the_weights_and_nothing_else() -> None:
    one, many = batched(EIGHT, 1, 5, 1024), batched(EIGHT, 7, 5, 1024)
    assert one == EIGHT.work(5, 1024)
    assert many.flops == 7 * one.flops
    assert many.bytes - EIGHT.weight_bytes == pytest.approx(7 * (one.bytes - EIGHT.weight_bytes))
    with pytest.raises(ValueError, match="at least 1 text"):
        batched(EIGHT, 0, 1, 0)


@pytest.mark.parametrize(("batch", "context"), [(1, 128), (16, 1024), (64, 1024), (256, 8192)])
def test_free_ends_where_it_is_said_to_end(batch: int, context: int) -> None:
    k = free_k(H100, EIGHT, batch, context)
    assert 0 < k < MOST
    assert cost(H100, EIGHT, batch, k, context) <= 1.05 < cost(H100, EIGHT, batch, k + 1, context)


def test_the_last_free_batch() -> None:
    batch = free_batch(H100, EIGHT, 4, 1024)
    assert cost(H100, EIGHT, batch, 4, 1024) <= 1.05 < cost(H100, EIGHT, batch + 1, 4, 1024)


def test_the_linear_layers_hide_nothing_behind_the_caches() -> None:
    """256 texts wait for arithmetic in their linear layers, however long they are: caches only add to both sides."""
    reading = EIGHT.weight_bytes / 3350e9
    computing = 256 * 5 * 2 * EIGHT.multiplied / 989.4e12
    assert computing > 4 * reading
    for context in (1024, 8192, 32_768):
        caches = 256 * context * EIGHT.cache_bytes / 3350e9
        expected = (computing + caches) / (reading + caches)
        assert cost(H100, EIGHT, 256, 4, context) == pytest.approx(expected, rel=0.01)
        assert H100.seconds(batched(EIGHT, 256, 5, context)) > computing + caches


def test_what_a_batch_holds_is_all_weights_and_every_cache() -> None:
    assert held(EIGHT, 1, 0) == 2 * EIGHT.parameters  # the table that is only looked up lies there too
    assert held(EIGHT, 64, 1024) == 2 * EIGHT.parameters + 64 * 1024 * EIGHT.cache_bytes
    assert held(EIGHT, 1024, 32_768) > 4e12


def test_memory_and_arithmetic_meet_where_the_picture_says() -> None:
    rows = meeting(EIGHT, H100)
    assert rows == int(H100.ridge)  # in 16 bits, as many rows as operations a byte
    assert H100.waits_for(EIGHT.work(rows + 1, 0)) == "arithmetic" != H100.waits_for(EIGHT.work(rows, 0))
    figure = two_needs(EIGHT, H100)
    assert f"takes longer from {rows + 1} on" in figure.layout.meta["alt"]
    assert len({trace.uid for trace in figure.data}) == 3


def test_times_are_drawn_and_told_beside_their_predictions() -> None:
    shape, ceiling = LLAMAS["Llama 1B"].shape(), Ceiling(1e12, 1e13, 0.002)
    seconds = {"lean 1": [[0.010], [0.012], [0.011]], "lean 16": [[0.030], [0.012], [0.022]]}
    made = Passes("lean", shape, 128, {0: 1, 1: 1, 16: 2}, Timings(seconds, {}), ceiling)
    figure = pass_times({"one": {"lean": made}, "other": {"lean": made}})
    measured, predicted = figure.data[:2]
    assert list(measured.x) == ["1", "16"] and list(measured.y) == [11, 11]
    assert list(predicted.y) == [round(1000 * made.predicted(n), 3) for n in (1, 16)]
    assert "1 row 11.0 ms" in figure.layout.meta["alt"]
    head, first, last = pass_table({"lean": made}).splitlines()
    assert head.startswith("lean engine") and first.split()[:3] == ["1", "row", "11.0"]
    assert last.split()[4] == "1.00"  # the median of 1.5, 0.5 and 1.0, each within its round
    assert {first.split()[-1], last.split()[-1]} <= {"memory", "arithmetic", "dispatch"}


# The widget


def shown_right(explorer: RooflineExplorer) -> bool:
    parts = explorer.parts()
    drawn = zip(explorer.plot.data, parts["x"], parts["y"], strict=True)
    labels = [each.text for each in explorer.plot.layout.annotations[-2:]]
    return all(list(t.x) == x and list(t.y) == y for t, x, y in drawn) and labels == parts["labels"]


def test_hand_and_code_move_the_same_things() -> None:
    explorer = RooflineExplorer()
    before = explorer.readout.value
    explorer.controls["batch"].value = 64  # as a hand does
    assert explorer.state["batch"] == 64 and "64 texts" in explorer.text and shown_right(explorer)
    assert explorer.readout.value != before
    explorer.move(k=16, device="T4", precision="float32", model="Llama 1B", context=CONTEXTS[-1])  # as code does
    assert explorer.controls["k"].value == 16 and explorer.controls["device"].value == "T4"
    assert explorer.text.startswith("Llama 1B on T4") and shown_right(explorer)
    assert "It does not fit" in explorer.text and "does not fit" in explorer.parts()["labels"][1]
    explorer.move(device="H100 SXM", batch=1)
    assert explorer.missing == "" and "fit" not in explorer.text + explorer.parts()["labels"][1]


@pytest.mark.parametrize(
    "wrong", [dict(batch=3), dict(device="abacus"), dict(k=17), dict(speed=1), dict(precision="bf16")]
)
def test_what_is_not_there_is_refused(wrong: dict[str, object]) -> None:
    explorer = RooflineExplorer()
    with pytest.raises(ValueError, match="must be one of|there is no control"):
        explorer.move(**wrong)
    assert explorer.state["batch"] == 1


def test_every_setting_has_numbers_and_every_device_a_roof() -> None:
    explorer = RooflineExplorer()
    for device in DEVICES:
        for precision in PRECISIONS:
            explorer.state |= dict(device=device, precision=precision)
            for batch, context in ((BATCHES[0], CONTEXTS[0]), (BATCHES[-1], CONTEXTS[-1])):
                explorer.state |= dict(batch=batch, context=context)
                parts = explorer.parts()
                assert json.loads(json.dumps(parts)) == parts
                assert all(y > 0 for line in parts["y"] for y in line)
                assert 1 <= explorer.cost(4) <= 5.001


def test_this_machine_and_its_models_can_be_chosen() -> None:
    shape = shape_of(sd.load_pair().target)
    explorer = RooflineExplorer(Ceiling(2e10, 1e11, 1e-3), {"pocket target": shape})
    explorer.move(device=HERE, model="pocket target")
    assert explorer.shape == shape and "waits for" in explorer.text
    assert explorer.ceiling.ridge == 5


def test_a_move_takes_less_than_a_tenth_of_a_second() -> None:
    explorer, moves = RooflineExplorer(), []
    for k in (1, 8, 2, 7, 3, 6, 5):
        began = time.process_time()  # the machine may be busy with other tests
        explorer.move(k=k, batch=2**k)
        moves.append(time.process_time() - began)
    assert sorted(moves)[len(moves) // 2] < 0.1, moves


def test_without_widgets_a_still_figure_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from specdec_lite.viz import explorer as frame

    monkeypatch.setattr(frame, "live_possible", lambda: False)
    explorer = RooflineExplorer()
    explorer.move(k=8)
    content = explorer._repr_mimebundle_()
    assert content["text/plain"] == f"{explorer.text}\n{frame.MISSING}"
    assert "K = 8" in explorer.text
