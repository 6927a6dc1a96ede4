"""What a pass needs, counted; what it takes, reported. No time is asserted."""

from __future__ import annotations

import json
import time
from pathlib import Path

import architectures
import pytest
import tiny
import torch
from fake_clock import Clock

import specdec_lite as sd
from specdec_lite.bench import bandwidth as speed
from specdec_lite.bench import bottleneck as regime
from specdec_lite.bench import models_under_test as subjects
from specdec_lite.bench import passes
from specdec_lite.bench.passes import Passes, compared_with, hollow, time_passes
from specdec_lite.bench.roofline_model import Ceiling, Work, shape_of
from specdec_lite.bench.timing import TimedCall, Timings, repeated
from specdec_lite.cli import main
from specdec_lite.engines.cpu_kernels import half
from specdec_lite.viz.roofline import Panel, Series, roofline_figure, roofline_sentence, save

DENSE = [name for name in architectures.ARCHITECTURES if "num_experts_per_tok" not in architectures.ARCHITECTURES[name]]


# Counting


@pytest.mark.parametrize("name", architectures.ARCHITECTURES)
def test_the_parts_are_the_parameters(name: str) -> None:
    module = architectures.build(name)
    shape = shape_of(sd.TransformersModel(module))
    total = sum(weight.numel() for weight in module.parameters())
    assert shape.parameters == total == shape.weights + shape.looked_up + shape.expert_weights
    assert shape.weight_bytes == 8 * shape.weights  # float64
    assert (shape.expert_weights > 0) == (shape.experts > 0) == (name not in DENSE)


@pytest.mark.parametrize("name", architectures.ARCHITECTURES)
def test_the_cache_is_what_the_arena_keeps(name: str) -> None:
    model = sd.TransformersModel(architectures.build(name))
    cache = model.new_cache(1, 3)
    with torch.inference_mode():
        model.forward(torch.zeros(1, 3, dtype=torch.long), cache)
    assert 3 * shape_of(model).cache_bytes == cache.nbytes


def test_a_llama_counted_by_hand() -> None:
    model = sd.TransformersModel(tiny.llama())
    width, inner, layers, heads, kv_heads, size = 16, 24, 2, 4, 2, 4
    matrices = layers * (2 * width * heads * size + 2 * width * kv_heads * size + 3 * width * inner)
    head, norms = tiny.VOCAB * width, (2 * layers + 1) * width
    kept = layers * 2 * kv_heads * size  # numbers for each token: keys and values
    shape = shape_of(model)
    assert (shape.multiplied, shape.weights, shape.looked_up) == (matrices + head, matrices + head + norms, head)
    assert (shape.cache_width, shape.row_bytes) == (kept, 8 * width)

    one = shape.work(1, context=10)
    assert one.bytes == 8 * (matrices + head + norms + width) + 8 * kept * (10 + 2)
    assert one.flops == 2 * (matrices + head) + 2 * 11 * layers * heads * 2 * size
    assert one.intensity == one.flops / one.bytes

    five = shape.work(5, context=10)  # token i of the block sees the context, those before it and itself
    seen = sum(10 + i for i in range(1, 6))
    assert five.flops == 2 * 5 * (matrices + head) + 2 * seen * layers * heads * 2 * size
    assert five.bytes - one.bytes == 4 * 8 * width + 4 * 2 * 8 * kept  # the weights are read once
    linear, attention = five.kernels
    assert attention == (8 * kept * (10 + 2 * 5), 2 * seen * layers * heads * 2 * size)
    assert linear == (8 * (matrices + head + norms + 5 * width), 2 * 5 * (matrices + head))


def test_a_tied_head_is_read_and_counted_once() -> None:
    config = architectures.BASE | dict(tie_word_embeddings=True)
    shape = shape_of(sd.TransformersModel(architectures.make("Llama", config)))
    assert shape.looked_up == shape.row_bytes == 0
    assert shape.parameters == shape.weights


def test_experts_are_read_as_rows_are_expected_to_choose_them() -> None:
    shape = shape_of(sd.TransformersModel(architectures.build("Mixtral")))  # 2 of 4 for each row
    assert (shape.experts, shape.chosen) == (4, 2)
    plain = [shape.work(n, 0).bytes - n * shape.row_bytes - 2 * n * shape.cache_bytes for n in (1, 2, 60)]
    read = [(each - shape.weight_bytes) / shape.expert_bytes for each in plain]
    assert read == pytest.approx([1 / 2, 3 / 4, 1.0])
    free = shape.work(1, 0).flops - 2 * shape.multiplied - 2 * shape.attended
    assert free == pytest.approx(2 * shape.expert_weights / 2)


def test_the_lean_engine_reads_exact_halves_in_two_bytes() -> None:
    module = tiny.llama().float()
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(weight.half().float())
    eager, lean = (shape_of(sd.TransformersModel(module, engine=name)) for name in ("eager", "lean"))
    assert eager.weight_bytes == 4 * eager.weights
    if half(torch.ones(16, 16), None) is None:
        pytest.skip("this torch cannot pack float16 weights here")
    norms = lean.weights - lean.multiplied
    assert lean.weight_bytes == 2 * lean.multiplied + 4 * norms


@pytest.mark.parametrize("name", ["Llama", "GPT2"])
def test_a_token_takes_as_much_cache_whatever_room_an_engine_makes(name: str) -> None:
    module = architectures.build(name)
    eager, graph = (shape_of(sd.TransformersModel(module, engine=engine)) for engine in ("eager", "graph"))
    assert eager == graph


def test_moves_of_memory_are_counted_as_often_as_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "working_set", lambda device: 1 << 16)  # quick, so that a turn takes many
    for name, call in speed.streams(torch.device("cpu")).items():
        moved = call(0, 0)
        count, rest = divmod(moved, (2 if name == "copy" else 1) << 16)
        assert rest == 0 and count > 10
        assert call(0, 1) == moved


def test_what_is_short_is_repeated_and_every_call_counted() -> None:
    calls: list[int] = []
    turn, count = repeated(lambda: calls.append(1), 3, lambda: None)
    calls.clear()
    assert count > 10
    assert turn(0, 0) == 3 * count == 3 * len(calls)
    assert repeated(lambda: time.sleep(0.05), 3, lambda: None)[1] == 1


def test_other_widths_of_numbers() -> None:
    shape = shape_of(sd.TransformersModel(tiny.llama()))
    half = shape.stored(2)
    assert half.weight_bytes == 2 * shape.weights
    assert half.work(3, 7).bytes == shape.work(3, 7).bytes / 4
    assert half.work(3, 7).flops == shape.work(3, 7).flops


@pytest.mark.parametrize(("rows", "context"), [(0, 4), (1, -1)])
def test_what_is_no_pass_is_refused(rows: int, context: int) -> None:
    with pytest.raises(ValueError, match="needs at least 1 row"):
        shape_of(sd.TransformersModel(tiny.llama())).work(rows, context)


# The time model


def test_the_slowest_need_decides() -> None:
    ceiling = Ceiling(bandwidth=100, throughput=1000, fixed=0.5)
    assert ceiling.ridge == 10
    assert ceiling.seconds(Work(bytes=200, flops=10)) == 2.5
    assert ceiling.waits_for(Work(bytes=200, flops=10)) == "memory"
    assert ceiling.seconds(Work(bytes=200, flops=3000)) == 3.5
    assert ceiling.waits_for(Work(bytes=200, flops=3000)) == "arithmetic"
    assert ceiling.waits_for(Work(bytes=1, flops=1)) == "dispatch"
    both = Work(bytes=200, flops=3000, attention_bytes=150, attention_flops=100)  # 50 bytes for 2,900 operations
    assert ceiling.seconds(both) == 2.9 + 1.5 + 0.5  # one after another, so neither hides behind the other
    assert ceiling.waits_for(both) == "arithmetic"
    ahead = Ceiling(bandwidth=100, throughput=1000, fixed=0.5, overlaps=True)  # a GPU is told in advance
    assert ahead.seconds(Work(bytes=200, flops=10)) == 2
    assert ahead.seconds(Work(bytes=1, flops=1)) == 0.5
    slow = Ceiling(bandwidth=100, throughput=1000, fixed=3, overlaps=True)
    assert (slow.seconds(both), slow.waits_for(both)) == (4.4, "arithmetic")  # starting took 3 s of these


def made_up(seconds: dict[int, float], fixed: float = 0.0, wide: bool = True) -> subjects.Subject:
    """A subject whose passes took what is given, in three rounds, while reading gave 1,000 bytes a second."""
    model = sd.TransformersModel(tiny.llama())
    shape = shape_of(model)
    ceiling = Ceiling(bandwidth=1000.0, throughput=1e6, fixed=fixed)
    timings = Timings(
        {f"eager {n}": [[2 * took]] * 3 for n, took in seconds.items()} | {"read": [[1.0]] * 3}, {"read": [[1000]] * 3}
    )
    made = Passes("eager", shape, 10, dict.fromkeys(seconds, 2) | {0: 1}, timings, ceiling)
    return subjects.Subject("made up", model.module, 1, wide, {"eager": made})


def test_what_was_wanted_is_judged_by_the_numbers() -> None:
    needs = shape_of(sd.TransformersModel(tiny.llama())).work(1, 10).bytes / 1000  # seconds at the bandwidth
    good = regime.wanted(made_up({1: needs / 0.9, 5: 1.2 * needs / 0.9}))
    assert good["five_rows"]["met"] is True
    assert good["five_rows"]["is"]["median"] == pytest.approx(1.2)
    assert good["share_of_bandwidth"]["met"] is True
    assert good["share_of_bandwidth"]["is"]["median"] == pytest.approx(0.9)
    assert good["share_of_bandwidth"]["quietest_quarter"] == pytest.approx(0.9)
    bad = made_up({1: needs / 0.5, 5: 2 * needs / 0.5})
    assert [each["met"] for each in regime.wanted(bad).values()] == [False, False]
    assert all("not met" in line for line in regime.wanted_lines(bad))
    assert regime.wanted(made_up({1: needs, 5: needs}, wide=False)) == {}


def test_one_engine_is_judged_for_both_naive_decoding_and_verification() -> None:
    """Not the one that is a hair faster at a single row and pays for it at five."""
    subject = made_up({1: 1.00, 5: 3.0})
    flat = made_up({1: 1.05, 5: 1.1}).best
    flat.engine, flat.timings.seconds = "lean", {k.replace("eager", "lean"): v for k, v in flat.timings.seconds.items()}
    subject.passes["lean"] = flat
    assert subject.best.engine == "eager"
    few = regime.wanted(subject)["five_rows"]
    assert few["engine"] == "lean"
    assert few["is"]["median"] == pytest.approx(1.1 / 1.05)


def test_on_a_gpu_a_share_is_that_of_copying() -> None:
    subject = made_up({1: 1.0, 5: 1.0})
    best = subject.best
    best.timings.seconds["copy"], best.timings.tokens["copy"] = [[1.0]] * 3, [[2000]] * 3
    of_reading = best.share(1).median
    best.against = "copy"
    assert best.share(1).median == best.quiet_share() == of_reading / 2
    assert "80% or more of the copy bandwidth" in regime.wanted_lines(subject)[1]
    assert [compared_with(torch.device(kind)) for kind in ("cpu", "cuda")] == ["read", "copy"]


def test_the_regime_names_the_cause_and_the_parting_its_place() -> None:
    needs = shape_of(sd.TransformersModel(tiny.llama())).work(1, 10).bytes / 1000
    waiting = made_up({1: needs, 5: 3 * needs})
    assert "a pass over one row waits for its weights to come from memory (memory" in regime.regime(waiting)
    assert regime.parting(waiting.best).startswith("At 5 rows by more than a quarter (eager engine), most at 5, 2.")
    assert "waits for its own kernels" not in regime.regime(waiting)
    assert "it takes 3.0 times as long as these needs explain" in regime.regime(made_up({1: 3 * needs}))
    assert "waits for dispatch" in regime.regime(made_up({1: needs}, fixed=10 * needs))
    assert regime.parting(made_up({1: needs}).best).startswith("Nowhere by more than a quarter")


def test_data_sheets_promise_flat_passes_until_arithmetic() -> None:
    told = regime.elsewhere(shape_of(sd.TransformersModel(tiny.llama())), context=64)
    assert len(told) >= 8
    for each in told:
        assert each["one_row_seconds"] > 0
        assert 1 <= each["five_rows"] < 1.5
        assert each["arithmetic_from_rows"] > 5
        assert each["source"]


# Measuring


@pytest.mark.parametrize("name", ["Llama", "Mistral", "Qwen3", "GPT2", "Gemma2"])
def test_a_hollow_model_has_the_layers_and_next_to_no_weights(name: str) -> None:
    module = architectures.build(name)
    made = hollow(module, "eager")
    assert made is not None
    assert made.layers == module.config.num_hidden_layers
    assert made.dtype == module.dtype


def test_an_architecture_that_cannot_be_hollow_goes_without() -> None:
    assert hollow(architectures.build("Falcon"), "eager") is None  # its head_dim cannot be set


def test_both_engines_are_timed_in_the_same_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "working_set", lambda device: 1 << 20)
    made = time_passes(tiny.llama().float(), [2, 4], context=8, rounds=3)
    assert list(made) == ["eager", "lean"]
    for each in made.values():
        assert each.rows == [1, 2, 4]
        assert len(each.each(4)) == 3
        assert min(each.each(1)) > 0
        assert each.predicted(4) >= each.predicted(1) > 0
        assert each.ceiling.fixed > 0
        assert each.achieved(1) > 0
        assert each.share(1).median > 0
        assert each.ratio(1).median == 1


def test_passes_and_what_they_are_compared_with_are_timed_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted turns: a row takes a second, dispatch half of one, reading moves 10 bytes a second, a product 100."""
    clock = Clock(monkeypatch, passes, speed)

    def planted(what: str, seconds: float, made: float = 1.0) -> TimedCall:
        return lambda case, turn: clock.work(what, seconds) and made

    monkeypatch.setattr(
        passes, "streams", lambda device: {"read": planted("read", 2.0, 20), "copy": planted("copy", 3)}
    )
    monkeypatch.setattr(passes, "products", lambda device, name, dtype: {name: planted(name, 1.0, 100)})
    monkeypatch.setattr(passes, "hollow", lambda module, engine: engine)
    monkeypatch.setattr(
        passes,
        "step",
        lambda model, rows, context: (planted(f"{model} {rows}", 0.5 if isinstance(model, str) else rows), 1),
    )
    monkeypatch.setattr(speed, "products", passes.products)
    for rounds, clock.slow in ((1, {0}), (3, {0, 2})):
        clock.counts.clear()
        (made,) = time_passes(architectures.build("GPT2"), [1, 4], context=8, rounds=rounds).values()
        assert (made.seconds(1).median, made.seconds(4).median) == (1.0, 4.0)
        assert made.ratio(4).median == 4.0
        ceiling = made.ceiling
        assert (ceiling.bandwidth, ceiling.throughput, ceiling.fixed) == (10.0, 100.0, 0.5)
        clock.counts.clear()
        assert speed.throughput(torch.device("cpu"), {"float32": torch.float32}, rounds) == {"float32": 100.0}


def test_engines_come_from_one_list_and_one_that_cannot_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def model(module: object, engine: str) -> sd.TransformersModel:
        asked.append(engine)
        if engine == "slow":
            raise ValueError("not this one")
        return sd.TransformersModel(module, engine="eager" if engine == "fallen" else engine)

    monkeypatch.setattr(passes, "TransformersModel", model)
    monkeypatch.setattr(passes, "ENGINES", ("auto", "eager", "lean", "slow", "fallen", "graph"))
    assert list(passes.engines_of(tiny.llama())) == ["eager", "lean"]
    assert asked == ["eager", "lean", "slow", "fallen"]  # graphs are for CUDA
    with pytest.raises(ValueError, match="in training mode"):
        passes.engines_of(tiny.llama().train())


def test_only_what_fits_runs_lean_and_a_context_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "working_set", lambda device: 1 << 20)
    assert list(time_passes(architectures.build("GPT2"), [1], context=4, rounds=1)) == ["eager"]
    with pytest.raises(ValueError, match="the model's longest text is 160: give a smaller --context"):
        time_passes(tiny.llama(), [5], context=156, rounds=1)


def test_a_precision_without_a_product_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SIZES", (8, 16))
    device = torch.device("cpu")
    rates = speed.throughput(device, {"float32": torch.float32, "no": torch.bool}, rounds=1)
    assert "no" not in rates
    assert rates["float32"] > 0


def test_the_working_set_is_beyond_the_last_cache() -> None:
    device = torch.device("cpu")
    assert speed.working_set(device) >= 1 << 28
    assert speed.working_set(device) >= min(speed.MOST, 4 * (speed.last_level_cache(device) or 0))


# The command


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small working sets and products, so that nothing takes long."""
    monkeypatch.setattr(speed, "working_set", lambda device: 1 << 20)
    monkeypatch.setattr(speed, "SIZES", (8, 16))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    tiny.llama().float().save_pretrained(path)
    return str(path)


def test_a_model_of_one_s_own(folder: str, tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--json", str(tmp_path / "all.json"), "--picture", str(tmp_path / "roof.html")]
    command = ["roofline", "--target", folder, "--rows", "1", "2", "--context", "8", "--repeats", "2", "--threads", "1"]
    threads = torch.get_num_threads()
    assert main([*command, *files]) == 0
    assert torch.get_num_threads() == threads
    out = capsys.readouterr().out
    for words in ("memory, reading", "products in float32, GFLOP/s", "eager engine", "lean engine", "The regime.",
                  "Where they part.", "by data sheet", "H100 SXM", "The picture is in"):  # fmt: skip
        assert words in out
    assert "Wanted." not in out  # of the wide model alone
    assert "\033" not in out
    data = json.loads((tmp_path / "all.json").read_text())
    (model,) = data["models"]
    assert list(model["engines"]["lean"]["seconds"]) == ["1", "2", "5"]
    assert all(len(raw) == 2 for raw in model["engines"]["eager"]["seconds"].values())
    assert model["targets"] == {}
    assert data["gives"]["1"]["read"] > 0
    assert "plotly" in (tmp_path / "roof.html").read_text()


def test_without_a_target_the_pocket_one_and_a_wide_one(
    folder: str, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(subjects, "TARGET", Path(folder))
    monkeypatch.setattr(subjects, "random_llama", lambda shape, device, dtype: tiny.llama(seed=1).float())
    file = tmp_path / "all.json"
    assert main(["roofline", "--rows", "1", "--context", "8", "--repeats", "2", "--json", str(file)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Wanted. A pass over 5 rows at most 1.25 times one over a single row:" in out
    assert "Wanted. One row reads weights at 80% or more of the bandwidth measured in the same rounds:" in out
    pocket, wide = json.loads(file.read_text())["models"]
    assert pocket["name"] == "pocket target"
    assert set(wide["targets"]) == {"five_rows", "share_of_bandwidth"}
    assert wide["targets"]["five_rows"]["at_most"] == 1.25
    assert wide["targets"]["share_of_bandwidth"]["at_least"] == 0.8


def test_the_wide_model_is_what_the_target_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "last_level_cache", lambda device: 128 << 20)
    shape = subjects.wide_shape(torch.device("cpu"), None)
    assert shape.hidden == 1024
    assert shape.layers >= 6
    assert 4 * shape.parameters > 4 * (128 << 20)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--rows", "0"], "must be a whole number from 1 to 4096, got '0'"),
        (["--rows", "two"], "must be a whole number from 1 to 4096, got 'two'"),
        (["--context", "-1"], "must be a whole number of at least 0, got '-1'"),
        (["--device", "toaster"], "device must be cpu, cuda, cuda:N or mps, got 'toaster'"),
        (["--target", "/no/such/folder"], "there is no folder /no/such/folder"),
        (["--rows", "2000"], "a context of 128 and 2000 rows need 2128 tokens, and the model's longest text is 1024"),
        (["--json", "/no/such/folder/file.json"], "there is no folder /no/such/folder"),
        (["--picture", "/no/such/folder/file.png"], "there is no folder /no/such/folder"),
    ],
)
def test_bad_values_get_one_line_and_code_2(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["roofline", *argv])
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err


# The picture


PANELS = [
    Panel("small", 40e9, 200e9, [Series("eager engine", [1, 2], [0.5, 1.0], [1e9, 2e9], [2e9, 4e9])]),
    Panel("wide", 40e9, 200e9, [Series("eager engine", [1, 2], [0.5, 1.0], [1e9, 2e9], [2e9, 4e9]),
                                Series("lean engine", [1, 2], [1.0, 2.0], [3e9, 6e9], [4e9, 8e9])]),
]  # fmt: skip


def test_measured_and_predicted_lie_beside_each_other_in_every_panel() -> None:
    figure = roofline_figure(PANELS)
    assert figure == roofline_figure(PANELS)  # pure
    dots = [trace for trace in figure.data if "markers" in trace.mode]
    assert len(dots) == 2 * 3
    assert len({trace.uid for trace in figure.data}) == len(figure.data)
    lean = {trace.name: trace for trace in dots if "lean" in trace.name}
    measured, predicted = lean["lean engine, measured"], lean["lean engine, predicted"]
    assert list(measured.y) == [3.0, 6.0]
    assert list(predicted.y) == [4.0, 8.0]
    assert list(measured.text) == ["1", "2"]
    looks = {(trace.marker.symbol, trace.marker.color == "#FFFFFF", trace.line.dash) for trace in dots}
    assert len(looks) == 4  # apart without colour: by symbol, and hollow or full


def test_the_roof_bends_at_the_ridge() -> None:
    roof = roofline_figure(PANELS).data[0]
    assert roof.x[1] == 5.0
    assert list(roof.y)[1:] == [200.0, 200.0]
    assert roof.y[0] == pytest.approx(40 * roof.x[0])


def test_the_picture_is_told_in_words() -> None:
    told = roofline_sentence(PANELS)
    assert roofline_figure(PANELS).layout.meta["alt"] == told
    assert "wide, under 40.0 GB/s and 200 GFLOP/s, which meet at 5.0 operations a byte" in told
    assert "lean engine: 1 row 3.0 GFLOP/s (75% of the prediction), 2 rows 6.0 (75%)" in told


def test_without_kaleido_a_page_is_written_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specdec_lite.viz.roofline.find_spec", lambda name: None)
    told = save(roofline_figure(PANELS), str(tmp_path / "roof.png"))
    assert (tmp_path / "roof.html").exists()
    assert not (tmp_path / "roof.png").exists()
    assert "as a page and not as .png: kaleido is not installed" in told
