"""Pictures: every kind has a colour and a mark, figures show what the trace says, sliders move what they should."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
import tiny

import specdec_lite as sd
from specdec_lite import viz
from specdec_lite.pocket import recorded
from specdec_lite.pocket.recorded import FOLDER, Recorded, load_recorded
from specdec_lite.training import record_traces
from specdec_lite.viz import explorer as frame
from specdec_lite.viz import theme
from specdec_lite.viz.figures import bundle, recorded_race_parts
from specdec_lite.viz.timeline import race_parts
from specdec_lite.viz.tokens import shown, tell

K = 4
LETTERS = "a<\n &"  # what escaping must survive; one for each token


def decode(tokens: list[int]) -> str:
    return "".join(LETTERS[token] for token in tokens)


@pytest.fixture(scope="module")
def runs() -> tuple[sd.Trace, sd.Trace]:
    """A naive and a speculative trace of tables with five tokens, with rejections and bonus tokens."""
    target, draft = tiny.table_pair(vocab=5, context=60)
    common = dict(max_new_tokens=48, stop=sd.Stop(), seed=3)
    naive = sd.autoregressive(target, [0], **common)
    return naive.trace, sd.speculative(target, sd.ModelDrafter(draft), [0], k=K, **common).trace


@pytest.fixture(scope="module")
def made() -> list[Recorded]:
    """Recordings of a tiny pair, through the recipe and its file format."""
    target = tiny.llama()
    models = [sd.TransformersModel(m, tiny.tokenizer()) for m in (target, tiny.noisy(target, 0.2))]
    pair = sd.Pair(*models, tiny.tokenizer())
    files = [record_traces.record(pair, "abcd ef", t, repeats=1, ks=(1, 2, 5), new_tokens=20) for t in (0.0, 1.0)]
    return [recorded._read(json.loads(json.dumps(each))) for each in files]


def test_a_recording_leaves_out_the_run_that_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    target = tiny.llama()
    models = [sd.TransformersModel(m, tiny.tokenizer()) for m in (target, tiny.noisy(target, 0.2))]
    order: list[int] = []

    def planted(decode: Callable[..., sd.Decoded]) -> Callable[..., sd.Decoded]:
        """The first run of each k takes 1000 seconds a round and later ones two, all in drafting."""

        def run(*given: object, **how: object) -> sd.Decoded:
            made, seconds = decode(*given, **how), 2.0 if made_k(how) in order else 1000.0
            order.append(made_k(how))
            for each in made.trace.rounds:
                each.seconds = {"draft": seconds * max(1, len(each.drafted)), "verify": seconds, "rest": seconds}
            made.seconds = seconds
            return made

        return run

    def made_k(how: dict[str, object]) -> object:
        return how.get("k", 0)

    for name in ("autoregressive", "speculative"):
        monkeypatch.setattr(record_traces, name, planted(getattr(sd, name)))
    made = record_traces.record(sd.Pair(*models, tiny.tokenizer()), "abcd ef", 1.0, repeats=2, ks=(1, 2), new_tokens=9)
    assert [set(order[i : i + 3]) for i in range(0, 9, 3)] == [{0, 1, 2}] * 3
    for run in made["runs"].values():
        assert (run["wall"], run["seconds"]) == (2.0, dict.fromkeys(("draft", "verify", "rest"), 2.0))


# Theme


def test_every_kind_has_its_own_colour_mark_symbol_and_line() -> None:
    assert set(theme.KINDS) == {"accepted", "corrected", "bonus", "rejected", "sampled"}
    for field in ("colour", "tint", "mark", "symbol", "line"):
        assert len({getattr(kind, field) for kind in theme.KINDS.values()}) == len(theme.KINDS), field
    shapes = {kind.line.split()[1] + kind.line.split()[0] for kind in theme.KINDS.values()}
    assert len(shapes) == len(theme.KINDS)  # lines differ without their colour
    assert len({work.height for work in theme.WORK.values()}) == len(theme.WORK)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_on_every_tint_has_the_contrast_that_wcag_asks_of_small_text() -> None:
    for kind in theme.KINDS.values():
        assert (luminance(kind.tint) + 0.05) / (luminance(theme.INK) + 0.05) > 7


# Tokens


def test_the_told_text_is_the_text_and_a_rejected_draft_stands_before_its_correction(
    runs: tuple[sd.Trace, sd.Trace],
) -> None:
    _, fast = runs
    told = tell(fast, decode)
    kept = [token for each in fast.rounds for token in each.kept]
    assert [one.text for one in told if one.kind != "rejected"] == [decode([token]) for token in kept]
    kinds = [one.kind for one in told]
    assert {"accepted", "corrected", "bonus", "rejected"} <= set(kinds)
    for before, kind in zip(["", *kinds], kinds, strict=False):
        assert (before == "rejected") == (kind == "corrected")


def test_the_hover_tells_the_five_numbers_and_the_verdict_they_make(runs: tuple[sd.Trace, sd.Trace]) -> None:
    _, fast = runs
    judged = iter([one for one in tell(fast, decode) if one.kind in ("accepted", "rejected")])
    for each in fast.rounds:
        for i in range(min(each.judged, len(each.kept))):
            why = next(judged).why
            for name in ("p_target", "p_draft", "overlap", "chance", "uniform"):
                assert f"{name} {getattr(each, name)[i]:.3f}" in why
            assert (": below, so kept" in why) == (each.uniform[i] < each.chance[i])
            assert shown(decode([each.drafted[i]])) in why


def test_a_trace_without_numbers_says_so() -> None:
    target, draft = tiny.table_pair(vocab=5)
    bare = sd.speculative(target, sd.ModelDrafter(draft), [0], k=2, max_new_tokens=8, trace="off").trace
    assert all("not recorded" in one.why for one in tell(bare, decode) if one.kind in ("accepted", "rejected"))


class Text(HTMLParser):
    """The text of a page, and the titles of its spans."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.titles, self.open = "", [], 0
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.open += 1
        self.titles += [value for name, value in attributes if name == "title"]

    def handle_endtag(self, tag: str) -> None:
        self.open -= 1

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_well_formed_and_shows_text_marks_and_titles(runs: tuple[sd.Trace, sd.Trace]) -> None:
    _, fast = runs
    told = tell(fast, decode)
    page = Text(viz.tokens_html(fast, decode, prompt="if a < b:\n", legend=False))
    assert page.open == 0
    assert page.titles == [one.why for one in told]
    assert page.text.startswith("if a < b:⏎\n")
    wanted = "if a < b:⏎\n"
    for one in told:
        mark = "" if one.kind == "accepted" else theme.KINDS[one.kind].mark
        wanted += mark + (one.text.replace("\n", "⏎") if one.kind == "rejected" else one.text.replace("\n", "⏎\n"))
    assert page.text == wanted
    for kind in {one.kind for one in told}:
        assert f"{theme.KINDS[kind].mark} {kind}" in Text(viz.tokens_html(fast, decode)).text


def test_the_table_has_the_trace_of_the_first_rounds(runs: tuple[sd.Trace, sd.Trace]) -> None:
    _, fast = runs
    table = viz.tokens_table(fast, decode, rounds=2)
    assert set(table["round"]) == {1, 2}
    first = fast.rounds[0]
    assert list(table["p_draft"][: len(first.drafted)]) == [f"{p:.3f}" for p in first.p_draft]
    assert len(table) == sum(len(each.drafted) + (len(each.kept) > each.accepted) for each in fast.rounds[:2])


def test_counts_add_up(runs: tuple[sd.Trace, sd.Trace]) -> None:
    _, fast = runs
    counted = viz.counts(fast)
    assert counted.pop("rounds") == len(fast.rounds)
    assert sum(counted.values()) == fast.new_tokens == 48


# The race


def test_the_race_has_a_bar_for_every_forward_and_a_mark_for_every_token(runs: tuple[sd.Trace, sd.Trace]) -> None:
    naive, fast = runs
    data = {each["name"].split(" (")[0]: each for each in race_parts(naive, fast, decode)["data"]}
    assert len(data["target forward"]["x"]) == len(naive.rounds) + len(fast.rounds)
    assert len(data["drafting"]["x"]) == sum(len(each.drafted) for each in fast.rounds)
    counted = viz.counts(fast) | {"sampled": viz.counts(fast).get("sampled", 0) + naive.new_tokens}
    for kind in ("sampled", "accepted", "corrected", "bonus"):
        assert len(data[f"{kind} token"]["x"]) == len(data[f"{kind} token"]["hovertext"]) == counted[kind]
    work = sum(sum(data[name]["x"]) for name in theme.WORK)
    spent = 1000 * (sum(fast.time_split().values()) + sum(naive.time_split().values()))
    assert work == pytest.approx(spent, abs=1e-3 * 4 * len(data["drafting"]["x"]) + 0.2)


def test_figures_are_plain_json_with_a_sentence_and_stable_names(runs: tuple[sd.Trace, sd.Trace]) -> None:
    naive, fast = runs
    parts = race_parts(naive, fast, decode)
    assert json.loads(json.dumps(parts)) == parts
    names = [trace["uid"] for trace in parts["data"]]
    assert len(set(names)) == len(names)
    assert all(name.replace("-", "").isalnum() for name in names)  # plotly makes CSS selectors of them
    shown_as = bundle(viz.race(naive, fast, decode))
    assert f"in {len(fast.rounds)}:" in shown_as["text/plain"]
    assert len(shown_as["application/vnd.plotly.v1+json"]["data"]) == len(parts["data"])


def test_a_race_that_ends_with_rejections_only_still_lists_every_kind_in_its_legend() -> None:
    target, draft = tiny.table_pair(vocab=5, noise=4.0)
    common = dict(max_new_tokens=6, sampling=sd.Sampling(temperature=0), stop=sd.Stop())
    naive = sd.autoregressive(target, [0], **common).trace
    fast = sd.speculative(target, sd.ModelDrafter(draft), [0], k=1, **common).trace
    marks = [each for each in race_parts(naive, fast, decode)["data"] if each["type"] == "scatter"]
    assert len(marks) == 4 and all(each["x"] and each["showlegend"] for each in marks)


# Recordings


def test_a_recording_keeps_the_run(made: list[Recorded]) -> None:
    greedy, warm = made
    assert (greedy.title, warm.title) == ("greedy", "temperature 1")
    for each in made:
        assert set(each.runs) == {1, 2, 5} and set(each.wall) == {0, 1, 2, 5}
        for k, run in each.runs.items():
            assert run.new_tokens == each.naive.new_tokens == 20
            assert run.k == k
            assert verdicts_hold(run)
            whole = sum(each.naive.time_split().values()) / sum(run.time_split().values())
            assert each.predicted(k) == pytest.approx(whole)  # the readout agrees with the picture
    tokens = [token for each in greedy.naive.rounds for token in each.kept]
    for run in greedy.runs.values():  # greedy in float64: the same text at every k
        assert [token for each in run.rounds for token in each.kept] == tokens


def verdicts_hold(run: sd.Trace) -> bool:
    """Rounding kept every verdict, and positions follow from what was kept."""
    position = len(run.prompts[0])
    for each in run.rounds:
        below = [u < c for u, c in zip(each.uniform, each.chance, strict=True)]
        if each.position != position or below[: each.judged] != [True] * each.accepted + [False] * (
            each.judged - each.accepted
        ):
            return False
        position += len(each.kept)
    return True


def test_rounding_never_changes_a_verdict() -> None:
    one = sd.Round(0, 0, 1, [3], 1, 4, "bonus", [3, 4], None, {}, [0.5], [0.9], [0.6], [0.50001], [0.500009])
    packed = recorded.pack(sd.Trace([one], 1, [[0]]), {"draft": 1.0, "verify": 1.0, "rest": 0.0}, 1.0)
    *_, chance, uniform = packed["rounds"][0][-1][0]
    assert uniform < chance


def test_what_ships() -> None:
    files = sorted(FOLDER.glob("*.json"))
    assert sum(path.stat().st_size for path in files) < 300_000
    shipped = load_recorded()
    assert [each.temperature for each in shipped] == [0, 1]
    for each in shipped:
        assert list(each.runs) == list(range(1, 9))
        assert all(run.new_tokens == 64 and verdicts_hold(run) for run in each.runs.values())
        assert all(each.cost(k) > 0 and each.measured(k) > 0 for k in each.runs)
        assert all(len(run.rounds) < 64 for run in each.runs.values())
        assert each.decode(each.runs[4].rounds[0].kept)


def test_no_recording_says_how_to_make_one(tmp_path: object) -> None:
    with pytest.raises(FileNotFoundError, match="record_traces"):
        load_recorded(tmp_path)


def test_the_sweep_has_every_k_of_every_recording(made: list[Recorded]) -> None:
    figure = viz.k_sweep(made)
    *lines, level = figure.data
    assert len(lines) == 6  # for each recording: counted, predicted, by the clock
    assert all(list(trace.x) == [1, 2, 5] for trace in lines)
    assert len({(trace.line.dash, trace.marker.symbol) for trace in lines}) == 2  # told apart without colour
    assert list(level.y) == [1, 1] and level.name == "as fast as naive"
    told = figure.layout.meta["alt"]
    assert f"{made[0].predicted(5):.2f} times naive" in told and "fastest" not in told  # one run of each is no contest


def test_every_k_has_the_same_frame(made: list[Recorded]) -> None:
    frames = {json.dumps(recorded_race_parts(made[1], k)["layout"]["xaxis"]) for k in made[1].runs}
    heights = {recorded_race_parts(made[1], k)["layout"]["height"] for k in made[1].runs}
    assert len(frames) == len(heights) == 1


# Widgets


def same_data(explorer: viz.KExplorer) -> bool:
    wanted = recorded_race_parts(explorer.recorded, explorer.state["k"])
    return all(
        list(getattr(old, name)) == list(new[name])
        for old, new in zip(explorer.plot.data, wanted["data"], strict=True)
        for name in ("x", "y", "base", "hovertext")
        if name in new
    ) and [a.text for a in explorer.plot.layout.annotations] == [a["text"] for a in wanted["layout"]["annotations"]]


def test_a_slider_moves_figure_readout_and_text_together(made: list[Recorded]) -> None:
    explorer = viz.KExplorer(made, k=1)
    before = explorer.text, explorer.readout.value, explorer.words.value
    explorer.controls["k"].value = 5  # as a hand does
    assert explorer.state["k"] == 5
    assert same_data(explorer)
    assert explorer.text.startswith("K = 5, greedy")
    assert all(new != old for new, old in zip((explorer.text, explorer.readout.value), before, strict=False))
    explorer.controls["temperature"].value = 1.0
    assert (
        explorer.state["temperature"] == 1 and explorer.text.startswith("K = 5, temperature 1") and same_data(explorer)
    )
    explorer.move(k=2, temperature=0)  # as code does
    assert [each.value for each in explorer.controls.values()] == [2, 0] and same_data(explorer)
    assert explorer.words.value == explorer.page() != before[2]
    assert explorer.text.split("\n")[0] in explorer.readout.value


def test_a_value_that_was_not_recorded_is_refused(made: list[Recorded]) -> None:
    explorer = viz.KExplorer(made, k=1)
    with pytest.raises(ValueError, match="k must be one of"):
        explorer.move(k=3)
    with pytest.raises(ValueError, match="temperature must be one of"):
        explorer.move(temperature=0.5)
    with pytest.raises(ValueError, match="k must be one of"):
        viz.KExplorer(made, k=9)


def test_a_move_takes_less_than_a_tenth_of_a_second() -> None:
    explorer, moves = viz.KExplorer(), []
    for k in (1, 8, 2, 7, 3, 6, 5):
        began = time.process_time()  # the machine may be busy with other tests
        explorer.move(k=k)
        moves.append(time.process_time() - began)
    assert sorted(moves)[len(moves) // 2] < 0.1, moves


def test_the_widget_shows_its_readout_where_only_text_is_shown(made: list[Recorded]) -> None:
    explorer = viz.KExplorer(made, k=1)
    content = explorer._repr_mimebundle_()
    assert content["text/plain"] == explorer.text
    assert content[frame.WIDGET]["model_id"] == explorer.live.model_id


def test_without_widgets_a_still_figure_and_one_line(made: list[Recorded], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "live_possible", lambda: False)
    explorer = viz.KExplorer(made, k=1)
    explorer.move(k=5)
    content = explorer._repr_mimebundle_()
    assert set(content) == {"application/vnd.plotly.v1+json", "text/plain"}
    assert content["text/plain"] == f"{explorer.text}\n{frame.MISSING}"
    assert "K = 5" in explorer.text


def test_plotly_and_ipywidgets_load_only_when_a_picture_is_made() -> None:
    code = "import sys, specdec_lite.viz; sys.exit(bool({'plotly', 'ipywidgets', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
