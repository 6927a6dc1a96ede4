"""The command line: what it refuses and how, what the demo prints, and with which marks."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from transformers import PreTrainedTokenizerFast

import specdec_lite
from specdec_lite.arguments import MAX_K
from specdec_lite.bench.console import Ink, TokenWriter, percent, table
from specdec_lite.cli import main
from specdec_lite.decoding import MAX_K as LOOP_MAX_K
from specdec_lite.pocket.corpus import train_tokenizer

PROMPT = "def push(self, item):"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """`--target FOLDER --draft FOLDER` of two tiny random models."""
    folder = tmp_path_factory.mktemp("models")
    target = tiny.llama()
    target.save_pretrained(folder / "target")
    tiny.noisy(target, 0.1).save_pretrained(folder / "draft")
    tiny.tokenizer().save_pretrained(folder / "target")
    return ["--target", str(folder / "target"), "--draft", str(folder / "draft")]


@pytest.fixture(scope="module")
def demo(models: list[str]) -> list[str]:
    short = ["--prompt", PROMPT, "--max-new-tokens", "40", "--repeats", "1", "--k", "3"]
    return ["demo", *models, *short]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def on_a_terminal(argv: list[str], monkeypatch: pytest.MonkeyPatch, no_color: str = "") -> str:
    """What a command writes to a terminal that knows colours."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", no_color)  # empty counts as absent
    with contextlib.redirect_stdout(Terminal()) as stream:
        assert main(argv) == 0
    return stream.getvalue()


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error of a command that ends with code 2."""
    try:
        code = main(argv)
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def test_parsing_needs_no_torch():
    lines = [
        "import sys, types",
        "package = types.ModuleType('specdec_lite')",  # without what its __init__ imports
        f"package.__path__ = [{str(Path(specdec_lite.__file__).parent)!r}]",
        "sys.modules['specdec_lite'] = package",
        "from specdec_lite.arguments import build_parser",
        "build_parser().format_help()",
        "assert 'torch' not in sys.modules",
    ]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "demo" in out
    assert "bench" in out


def test_k_has_the_loop_s_limit():
    assert MAX_K == LOOP_MAX_K


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "required: COMMAND"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["demo", "--k", "0"], "must be a whole number from 1 to 16, got '0'"),
        (["demo", "--k", "17"], "must be a whole number from 1 to 16, got '17'"),
        (["demo", "--k", "four"], "must be a whole number from 1 to 16, got 'four'"),
        (["demo", "--temperature", "-1"], "must be 0 (greedy) or a positive number, got '-1'"),
        (["demo", "--temperature", "nan"], "must be 0 (greedy) or a positive number, got 'nan'"),
        (["demo", "--temperature", "inf"], "must be 0 (greedy) or a positive number, got 'inf'"),
        (["demo", "--seed", "-3"], "must be a whole number of at least 0, got '-3'"),
        (["demo", "--max-new-tokens", "0"], "must be a whole number of at least 1, got '0'"),
        (["demo", "--device", "toaster"], "device must be cpu, cuda, cuda:N or mps, got 'toaster'"),
        (["demo", "--target", "somewhere"], "--target somewhere needs a --draft to draft for it, or --drafter lookup"),
        (["bench", "--target", "somewhere"], "--target somewhere needs a --draft to draft for it\n"),
        (["demo", "--draft", "somewhere"], "a draft needs a target"),
        (["demo", "--target", "/no/such/folder", "--draft", "/no/such/folder"], "there is no folder /no/such/folder"),
        (["demo", "--target", "no/model", "--draft", "no/draft"], "cannot load the target no/model"),
        (["bench", "--k", "2", "99"], "must be a whole number from 1 to 16, got '99'"),
        (["bench", "--temperatures", "0", "cold"], "must be 0 (greedy) or a positive number, got 'cold'"),
        (["bench", "--only", "mine"], "invalid choice: 'mine'"),
        (["bench", "--json", "/no/such/folder/file.json"], "there is no folder /no/such/folder"),
    ],
)
def test_bad_values_get_one_line_and_code_2(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]):
    assert says in refused(argv, capsys)


@pytest.mark.parametrize(
    ("extra", "says"), [(["--prompt", ""], "prompt is empty"), (["--max-new-tokens", "4000"], "context is 160")]
)
def test_values_that_only_the_models_can_judge(
    extra: list[str], says: str, demo: list[str], capsys: pytest.CaptureFixture[str]
):
    assert says in refused([*demo, *extra], capsys)


def test_a_pipe_gets_marks_but_no_escape_codes(demo: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(demo) == 0
    out, err = capsys.readouterr()
    assert "\033" not in out
    assert err == ""
    legend, text = out.split("Speculative decoding")[1].split("│", 1)
    assert "▲corrected" in legend
    assert "★bonus" in legend
    assert " accepted" in legend
    story = text[: text.index("tokens a second")]
    kinds = {kind: int(story.split(f" {kind}")[0].split()[-1]) for kind in ("accepted", "corrected", "bonus")}
    assert all(kinds.values()), kinds
    assert text.count("▲") == kinds["corrected"]
    assert text.count("★") == kinds["bonus"]
    for row in ("tokens a second", "tokens a round", "acceptance", "speed-up", "The cause. Verifying 4 tokens costs"):
        assert row in out
    assert "Same text? Yes, all 40 tokens are identical." in " ".join(out.split())


def test_a_terminal_gets_three_colours_and_weights(demo: list[str], monkeypatch: pytest.MonkeyPatch):
    out = on_a_terminal(demo, monkeypatch)
    assert "\033[38;5;36m" in out  # accepted
    assert "\033[38;5;166m▲\033[0m\033[4;38;5;166m" in out  # corrected: mark, then underlined
    assert "\033[38;5;32m★\033[0m\033[1;38;5;32m" in out  # bonus: mark, then bold


def test_no_color_keeps_weight_and_marks(demo: list[str], monkeypatch: pytest.MonkeyPatch):
    out = on_a_terminal(demo, monkeypatch, no_color="1")
    assert "38;5" not in out
    assert "▲\033[4m" in out
    assert "★\033[1m" in out


def test_sampling_does_not_promise_the_same_text(demo: list[str], capsys: pytest.CaptureFixture[str]):
    assert main([*demo, "--temperature", "1", "--seed", "5"]) == 0
    out = capsys.readouterr().out
    assert "temperature 1, seed 5" in out
    assert "Same text? Not expected" in out


def test_json_alone_on_standard_output(demo: list[str], capsys: pytest.CaptureFixture[str]):
    assert main([*demo, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["settings"]["k"] == 3
    assert data["identical"] is True
    assert data["naive"]["tokens"] == data["speculative"]["tokens"]
    assert len(data["naive"]["tokens"]) == 40 == sum(data["kinds"].values())
    assert data["tokens_per_round"] == 40 / data["rounds"]
    assert set(data["forward_seconds"]["target"]) == {"1", "4"}
    assert 0 <= data["acceptance"] <= 1
    assert data["speed_up"]["low"] <= data["speed_up"]["median"] <= data["speed_up"]["high"]


@pytest.mark.parametrize("alone", [True, False], ids=["a target alone", "a pair"])
def test_the_text_itself_can_draft(models: list[str], alone: bool, capsys: pytest.CaptureFixture[str]):
    argv = ["demo", *models[: 2 if alone else 4], "--drafter", "lookup", "--prompt", PROMPT * 2, "--repeats", "1"]
    assert main([*argv, "--max-new-tokens", "40"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "drafter copies its draft tokens from the text itself" in out and "draft 2 layers" not in out
    assert "up to 4 tokens are looked up in the text, the target verifies them in one forward" in out
    assert "Same text? Yes, all 40 tokens are identical." in out
    assert "a round costs next to nothing for drafting" in out
    assert main([*argv, "--max-new-tokens", "40", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert set(data["pair"]) == set(data["forward_seconds"]) == {"target"}
    assert data["settings"]["drafter"] == "lookup" and data["identical"] is True


@pytest.fixture(scope="module")
def bytewise() -> PreTrainedTokenizerFast:
    """A tokenizer with hardly more than the 256 bytes."""
    return train_tokenizer(["abc"], 260)


def test_half_a_character_waits_for_the_rest(bytewise: PreTrainedTokenizerFast):
    stream, tokens = io.StringIO(), bytewise.encode("é漢!é")
    assert len(tokens) == 2 + 3 + 1 + 2
    writer, grown = TokenWriter(bytewise, bytewise.encode("a"), Ink(stream)), []
    for token in tokens[:-1]:
        writer.add(token, "accepted")
        grown.append(stream.getvalue().split("a", 1)[1])
    assert grown == ["", "é", "é", "é", "é漢", "é漢!", "é漢!"]
    writer.close()  # the text ended inside a character
    assert stream.getvalue().endswith("é漢!\ufffd\n")


def test_no_mark_is_lost_while_a_character_is_incomplete(bytewise: PreTrainedTokenizerFast):
    stream = Terminal()
    writer = TokenWriter(bytewise, bytewise.encode("a"), Ink(stream))
    for token, kind in zip(bytewise.encode("é"), ("corrected", "accepted"), strict=True):
        writer.add(token, kind)
    assert "▲" in stream.getvalue()


def test_control_characters_of_a_model_stay_harmless(bytewise: PreTrainedTokenizerFast):
    stream = io.StringIO()
    writer = TokenWriter(bytewise, bytewise.encode("a"), Ink(stream))
    for token in bytewise.encode("\033[2J"):
        writer.add(token, "accepted")
    assert "\033" not in stream.getvalue()
    assert "[2J" in stream.getvalue()


def test_a_table_aligns_and_a_share_without_cases_says_so():
    assert table([["", "b"], ["long", "1.00"]], indent="") == ["         b", "long  1.00"]
    assert percent(0.657) == "66%"
    assert percent(float("nan")) == "none"
