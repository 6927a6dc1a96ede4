"""Models by name: what is loaded and how, and what is refused, with one line that says what to do."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import huggingface_hub.errors as client
import pytest
import torch
import transformers
from tiny import VOCAB, llama, noisy, pair, tokenizer

import specdec_lite as sd
from specdec_lite.loading.checkpoints import choose_device, choose_dtype, explained


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A target with its tokenizer and a draft without, saved by transformers."""
    where = tmp_path_factory.mktemp("pair")
    llama().save_pretrained(where / "target")
    tokenizer().save_pretrained(where / "target")
    noisy(llama(), 0.1).save_pretrained(where / "draft")
    return where / "target", where / "draft"


@pytest.fixture
def copied(folders: tuple[Path, Path], tmp_path: Path) -> Path:
    """The target's folder, to be noisy_draft."""
    return Path(shutil.copytree(folders[0], tmp_path / "copied"))


def describe(folder: Path, **changes: Any) -> Path:
    """Change a folder's config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def refusal(*sources: Any, **kwargs: Any) -> str:
    """What load_pair says when it refuses: one line."""
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as told:
        sd.load_pair(*sources, **kwargs)
    return str(told.value)


# Devices and dtypes


@pytest.mark.parametrize("device", ["toaster", "cuda:x", "meta", "xla"])
def test_devices_that_are_not_known(device: str) -> None:
    assert refusal(device=device) == f"device must be cpu, cuda, cuda:N or mps, got '{device}'"


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert "device 'cuda' is not there" in refusal(device="cuda")
    assert "sees 0 CUDA devices here): use device='cpu'" in refusal(device="cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert "device 'cuda:2' is not there" in refusal(device="cuda:2")
    assert [choose_device(name) for name in ("cuda", "cuda:1")] == [torch.device("cuda"), torch.device("cuda:1")]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert refusal(device="mps").startswith("device 'mps' is not there")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("mps") == torch.device("mps")


def test_mps_has_no_float64_whether_one_is_here_or_not() -> None:
    for dtype in ("float64", torch.float64):
        assert refusal(device="mps", dtype=dtype).startswith("mps has no float64: use dtype='float32'")
        assert refusal(device=torch.device("mps:0"), dtype=dtype).startswith("mps has no float64")
    assert choose_dtype("float32", "mps") == torch.float32


def test_a_checkpoint_in_float64_does_not_reach_mps_unasked(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert refusal(*folders, device="mps").startswith("mps has no float64")


@pytest.mark.parametrize("dtype", ["float13", "int8", torch.int64, "torch.float32", 32])
def test_dtypes_that_models_do_not_run_in(dtype: Any) -> None:
    assert refusal(dtype=dtype) == f"dtype must be one of float32, bfloat16, float16, float64 or auto, got {dtype!r}"


def test_the_dtype_asked_for_or_float32_on_a_cpu(folders: tuple[Path, Path]) -> None:
    assert sd.load_pair(*folders).target.dtype == torch.float32  # the checkpoint is in float64
    for dtype in ("float64", "bfloat16", torch.float16):
        loaded = sd.load_pair(*folders, dtype=dtype, probe=False)
        assert loaded.target.dtype == loaded.draft.dtype == getattr(torch, str(dtype).removeprefix("torch."))


# Folders


def test_weights_are_read_once_and_only_safetensors(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    plain = transformers.AutoModelForCausalLM.from_pretrained

    def recorded(name: str, **kwargs: Any) -> Any:
        calls.append((name, kwargs["use_safetensors"], kwargs["trust_remote_code"]))
        return plain(name, **kwargs)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", recorded)
    sd.load_pair(*folders)
    assert calls == [(str(each), True, False) for each in folders]
    calls.clear()
    twin = sd.load_pair(str(folders[0]), folders[0])
    assert len(calls) == 1
    assert twin.target.module is twin.draft.module


def test_weights_that_are_missing_are_not_made_up(copied: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copied / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    told = refusal(copied, copied)
    assert told.endswith("lacks 1 of the model's weights, for instance model.layers.1.mlp.up_proj.weight")


def test_a_file_cut_short(copied: Path) -> None:
    with (copied / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    assert f"cannot load the target {copied}: SafetensorError: " in refusal(copied, copied)


@pytest.mark.parametrize("name", ["/no/such/folder", "./models/mine", "~/no-such-model", "a/b/c", r"C:\models\mine"])
def test_folders_that_are_not_there(name: str) -> None:
    assert refusal(name, name) == f"there is no folder {name}"
    assert refusal(llama(), Path(name)) == f"there is no folder {Path(name)}"


def test_folders_that_hold_no_model_or_pickled_weights(tmp_path: Path, copied: Path) -> None:
    assert refusal(tmp_path, tmp_path) == f"the folder {tmp_path} holds no model: config.json is missing"
    (copied / "model.safetensors").unlink()
    assert f"the folder {copied} holds no weights, and only safetensors are read" in refusal(copied, copied)
    torch.save(llama().state_dict(), copied / "pytorch_model.bin")
    told = refusal(copied, copied)
    assert "holds only pytorch_model.bin, and only safetensors are read" in told
    assert "model.save_pretrained(folder)" in told


def test_a_repository_s_own_code_is_never_run(copied: Path) -> None:
    """Neither its tokenizer nor its model; not even a question whether to."""
    trap = "open(__file__ + '.ran', 'w')\nclass Mine: pass\n"
    (copied / "mine.py").write_text(trap)
    describe(copied, model_type="mine", auto_map={"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Mine"})
    told = refusal(copied, copied)
    assert "brings Python code of its own, and none is run here" in told
    assert not list(copied.glob("*.ran"))


def test_code_beside_an_architecture_that_transformers_has_is_ignored(copied: Path, folders: tuple[Path, Path]) -> None:
    (copied / "mine.py").write_text("raise SystemExit('ran')\n")
    describe(copied, auto_map={"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Mine"})
    assert type(sd.load_pair(copied, folders[1]).target.module).__name__ == "LlamaForCausalLM"


def test_architectures_that_are_unknown_or_of_another_kind(copied: Path) -> None:
    assert "does not recognize this architecture" in refusal(describe(copied, model_type="mine"), copied)
    assert "no causal language model of its kind" in refusal(describe(copied, model_type="t5"), copied)


# The hub


def test_a_hub_that_cannot_be_reached_says_how_to_work_offline(folders: tuple[Path, Path]) -> None:
    """conftest.py keeps every test offline, so this is the real error of the hub's client."""
    told = refusal("no/model", "no/draft")
    assert told.startswith("cannot load the target no/model: the hub can't be reached")
    assert "give a local folder, or leave out target and draft for the pocket pair" in told
    assert refusal(folders[0], "no/draft").startswith("cannot load the draft no/draft: the hub can't be reached")


def test_what_the_hub_refuses() -> None:
    """Errors as its client raises them and transformers wraps them, by the names of their kinds."""
    for kind, says in {
        "GatedRepoError": "asks for permission",
        "RevisionNotFoundError": "no revision 'v9'",
        "RepositoryNotFoundError": "neither a folder here nor a repository",
        "HFValidationError": "neither a folder here nor the name of a repository",
    }.items():
        assert issubclass(getattr(client, kind), Exception)  # the name is the client's
        inner = type(kind, (Exception,), {})("lost")
        outer = OSError("long\nstory")
        outer.__cause__ = inner
        with pytest.raises(ValueError, match=says) as told, explained("target", "some/model", "v9"):
            raise outer
        assert "\n" not in str(told.value)
    assert "neither a folder here nor the name" in refusal("no model at all", "no model at all")


def test_revisions_go_to_the_hub_each_to_its_own_model(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub that has two repositories and writes down what it is asked for."""
    asked = set()
    names = {"some/model": folders[0], "some/draft": folders[1]}

    def ask(auto: Any) -> None:
        plain = auto.from_pretrained

        def answer(name: str, revision: str = "main", **kwargs: Any) -> Any:
            if name in names:  # from us; transformers asks itself about the folder
                asked.add((auto.__name__, name, revision))
                assert kwargs["trust_remote_code"] is False
            return plain(names.get(name, name), **kwargs)

        monkeypatch.setattr(auto, "from_pretrained", answer)

    autos = (transformers.AutoTokenizer, transformers.AutoConfig, transformers.AutoModelForCausalLM)
    for auto in autos:
        ask(auto)
    sd.load_pair("some/model", "some/draft", revision="v1", draft_revision="v2", probe=False)
    assert asked == {(auto.__name__, *each) for auto in autos for each in (("some/model", "v1"), ("some/draft", "v2"))}
    asked.clear()
    sd.load_pair("some/model", "some/draft", probe=False)
    assert {revision for _, _, revision in asked} == {"main"}


def test_folders_and_objects_have_no_revision(folders: tuple[Path, Path]) -> None:
    assert "local folder, and those have no revision, got 'v1'" in refusal(*folders, revision="v1")
    assert "the draft" in refusal(*folders, draft_revision="v1")
    assert "model object, which has no revision" in refusal(llama(), llama(), revision="v1")
    assert "no revision" in refusal(revision="v1")  # the pocket pair


# Progress


@pytest.fixture
def bars() -> Iterator[None]:
    logging = transformers.logging
    shown = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    yield
    if not shown:
        logging.disable_progress_bar()


@pytest.mark.usefixtures("bars")
def test_transformers_progress_bar_shows_but_not_for_the_pocket_pair(folders: tuple[Path, Path]) -> None:
    with contextlib.redirect_stderr(io.StringIO()) as screen:
        sd.load_pair(*folders)
    assert screen.getvalue().count("Loading weights: 100%") == 2
    with contextlib.redirect_stderr(io.StringIO()) as screen:
        sd.load_pair(probe=False)
    assert screen.getvalue() == ""
    assert transformers.logging.is_progress_bar_enabled()


# Quantised checkpoints


@pytest.mark.parametrize("scheme", ["torchao", "bitsandbytes", "quanto", "gptq", "awq"])
def test_a_quantised_checkpoint_names_what_it_lacks(scheme: str, copied: Path) -> None:
    module = {"gptq": "gptqmodel", "awq": "gptqmodel", "quanto": "optimum"}.get(scheme, scheme)
    if find_spec(module):
        pytest.skip(f"{module} is installed")
    details = dict(quant_method=scheme, bits=4, weights="int8", load_in_4bit=scheme == "bitsandbytes")
    details |= dict(quant_type={"default": {"_type": "Int8WeightOnlyConfig", "_data": {}}})
    told = refusal(describe(copied, quantization_config=details), copied)
    assert f"cannot load the target {copied}: " in told
    assert f"it is quantised with {scheme}; install what that asks for, or give plain weights" in told


def test_a_scheme_that_transformers_would_skip_is_refused(copied: Path) -> None:
    told = refusal(describe(copied, quantization_config=dict(quant_method="mine")), copied)
    assert told.endswith("is quantised with mine, which this transformers does not know")


def test_a_quantised_checkpoint_is_placed_by_transformers_and_not_moved_or_cast(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for from_pretrained, since the schemes need packages of their own."""
    describe(copied, quantization_config=dict(quant_method="torchao"))
    seen: dict[str, Any] = {}

    def stand_in(name: str, **kwargs: Any) -> Any:
        seen.update(kwargs)
        module = llama().float()
        module.to = lambda *_: pytest.fail("a quantised model was moved")
        return module, {"missing_keys": set()}

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", stand_in)
    loaded = sd.load_pair(copied, llama().float(), probe=False)
    assert loaded.target.dtype == torch.float32
    assert seen["dtype"] == "auto"
    assert seen.get("device_map", "cpu") == "cpu"
    draft = llama().float()
    monkeypatch.setattr("specdec_lite.loading.pair.choose_device", torch.device)  # as if it were there
    sd.load_pair(copied, draft, device="cuda:1", dtype="bfloat16", probe=False)
    assert (seen["device_map"], seen["dtype"]) == ("cuda:1", torch.bfloat16)


def test_a_checkpoint_quantised_by_torchao_decodes(tmp_path: Path) -> None:
    torchao = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    module = llama(vocab=64).float()
    module.save_pretrained(tmp_path / "plain")
    config = transformers.TorchAoConfig(torchao.Int8WeightOnlyConfig())
    quantised = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "plain", quantization_config=config)
    quantised.save_pretrained(tmp_path / "quantised")
    loaded = sd.load_pair(tmp_path / "quantised", module)
    greedy = dict(max_new_tokens=20, sampling=sd.Sampling(temperature=0))
    fast = sd.speculative(loaded.target, sd.ModelDrafter(loaded.draft), [1, 2, 3], **greedy)
    assert fast.tokens == sd.autoregressive(loaded.target, [1, 2, 3], **greedy).tokens


# Tokenizers


def vocabulary(pieces: list[str], folder: Path) -> Path:
    """Give a folder a tokenizer of these pieces."""
    from tokenizers import Tokenizer, models

    made = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token=pieces[0]))
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token=pieces[0])
    wrapped.save_pretrained(folder)
    return folder


LETTERS = ["<end>", *"abcdefghijkl"]


def model_folder(where: Path, pieces: list[str] | None, width: int = VOCAB) -> Path:
    llama(vocab=width, layers=1).save_pretrained(where)
    return where if pieces is None else vocabulary(pieces, where)


def test_tokenizers_that_differ_are_refused_with_the_first_tokens(tmp_path: Path) -> None:
    swapped = ["<end>", "b", "a", *"cdefgh", "J", "i", "j", "k", "l"]
    target = model_folder(tmp_path / "target", LETTERS)
    told = refusal(target, model_folder(tmp_path / "draft", swapped))
    assert "use different tokenizers, 6 tokens differ: 'a' is 1 in the target and 2 in the draft; 'b' is 2 in" in told
    assert told.count(" in the draft") == 3
    given = sd.load_pair(target, target).tokenizer
    assert "different tokenizers" in refusal(llama(layers=1), tmp_path / "draft", tokenizer=given)


def test_one_token_of_another_meaning_is_enough(tmp_path: Path) -> None:
    target = model_folder(tmp_path / "target", LETTERS)
    renamed = model_folder(tmp_path / "draft", [*LETTERS[:5], "other", *LETTERS[6:]])
    assert "1 tokens differ: 5 is 'e' in the target and 'other' in the draft. Give" in refusal(target, renamed)


def test_more_ids_in_one_and_special_tokens_renamed_are_fine(tmp_path: Path) -> None:
    target = model_folder(tmp_path / "target", LETTERS)
    assert sd.load_pair(target, model_folder(tmp_path / "longer", [*LETTERS, "m", "n"])).tokenizer is not None
    assert sd.load_pair(model_folder(tmp_path / "longer", [*LETTERS, "m"]), target).tokenizer is not None
    assert sd.load_pair(target, model_folder(tmp_path / "renamed", ["<pad>", *LETTERS[1:]])).tokenizer is not None


def test_a_folder_without_a_tokenizer_works_with_ids(folders: tuple[Path, Path]) -> None:
    assert sd.load_pair(*folders).tokenizer.get_vocab() == tokenizer().get_vocab()
    assert sd.load_pair(folders[1], folders[1]).tokenizer is None
    assert sd.load_pair(folders[1], folders[0], tokenizer=tokenizer()).tokenizer is tokenizer()


def test_widths_that_differ_by_padding_are_admitted(tmp_path: Path) -> None:
    target = model_folder(tmp_path / "target", LETTERS, width=40)
    for pieces in (LETTERS, None):  # with its own tokenizer, and without
        loaded = sd.load_pair(target, model_folder(tmp_path / f"{pieces and len(pieces)}", pieces, width=48))
        assert (loaded.target.vocab_size, loaded.draft.vocab_size) == (40, 48)
    assert sd.load_pair(llama(), llama(vocab=40), tokenizer=tokenizer()).draft.vocab_size == 40


def test_widths_that_differ_otherwise_are_refused(tmp_path: Path) -> None:
    told = refusal(llama(), llama(vocab=40))
    assert (
        f"{VOCAB} entries and the draft's 40: both must use one tokenizer (pass tokenizer= if one serves both" in told
    )
    told = refusal(llama(vocab=30), llama(vocab=40), tokenizer=tokenizer())  # 30 are too few for its tokens
    assert f"(their tokenizer has {VOCAB})" in told
    bare = model_folder(tmp_path / "bare", None, width=12)
    assert "their tokenizer has 13" in refusal(model_folder(tmp_path / "target", LETTERS), bare)


def test_objects_are_taken_as_they_are() -> None:
    target, draft = (each.module for each in pair())
    loaded = sd.load_pair(target, draft, dtype="float32")
    assert (loaded.target.module, loaded.draft.module) == (target, draft)
    assert loaded.target.dtype == torch.float64
