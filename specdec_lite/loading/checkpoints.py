"""A name becomes a model: safetensors only, none of the repository's own code, and one line when it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..messages import shown
from ..pocket import TARGET
from .named import fetch, named
from .random_weights import PREFIX, is_random, random_llama, shape_named

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

DTYPES = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16", "float64")}
TOKENIZER_FILES = ("tokenizer*", "vocab.*", "*.tiktoken", "tekken.json", "spiece.model", "sentencepiece*.model")
UNREACHABLE = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectTimeout", "ReadTimeout"}


def choose_device(device: str | torch.device) -> torch.device:
    """The device of that name.

    Raises:
        ValueError: not the name of one that is known here, or it is not there.
    """
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device must be cpu, cuda, cuda:N or mps, got {str(device)!r}")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        there = f"torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices here"
        raise ValueError(f"device {str(device)!r} is not there ({there}): use device='cpu', or a build of torch for it")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' is not there (it needs a Mac with Apple silicon): use device='cpu'")
    return chosen


def choose_dtype(dtype: str | torch.dtype | None, device: str | torch.device) -> torch.dtype | None:
    """The dtype of that name; None, or "auto", leaves it to the device and the checkpoint.

    Raises:
        ValueError: not one that models run in, or float64 for mps.
    """
    chosen = None if dtype in (None, "auto") else DTYPES.get(dtype, dtype) if isinstance(dtype, str) else dtype
    if chosen is not None and chosen not in DTYPES.values():
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)} or auto, got {shown(dtype)}")
    if chosen == torch.float64 and str(device).startswith("mps"):
        raise ValueError("mps has no float64: use dtype='float32' there, or device='cpu'")
    return chosen


def locate(source: str | Path, role: str, revision: str | None) -> str:
    """A folder that holds a model (a named one's, see `named`), `random:` and a shape, or else a hub id, as text.

    Raises:
        ValueError: what looks like a folder is not there or holds no safetensors; no such shape; or one of
            these was given a revision.
    """
    if is_random(source):
        if revision is not None:
            raise ValueError(
                f"the {role} {source} has random weights, and those have no revision, got {shown(revision)}"
            )
        return PREFIX + shape_named(str(source)).name
    if model := named(source):
        if revision is not None:
            raise ValueError(f"the {role} {model.name} is one fixed version, got revision {shown(revision)}")
        return str(fetch(model))
    name, path = str(source), Path(source).expanduser()
    if path.is_dir():
        if revision is not None:
            raise ValueError(f"the {role} {name} is a local folder, and those have no revision, got {shown(revision)}")
        if not (path / "config.json").is_file():
            raise ValueError(f"the folder {name} holds no model: config.json is missing")
        if not any(path.glob("*.safetensors")):
            others = sorted(each.name for kind in ("bin", "pt", "pth", "gguf") for each in path.glob(f"*.{kind}"))
            found = f"only {', '.join(others[:3])}" if others else "no weights"
            raise ValueError(f"the folder {name} holds {found}, and {SAFETENSORS_ONLY}")
        return str(path)
    if isinstance(source, Path) or name[:1] in ("/", ".", "~") or name.count("/") > 1 or "\\" in name:
        raise ValueError(f"there is no folder {name}")
    return name


SAFETENSORS_ONLY = (
    "only safetensors are read, since reading pickled weights can run code: "
    "convert them where you trust them, with model.save_pretrained(folder)"
)


def load_module(name: str, role: str, device: torch.device, dtype: torch.dtype | None, revision: str | None) -> Any:
    """The model behind a folder or hub id, its weights read once, or a random one; in evaluation mode on `device`.

    A checkpoint that is quantised is placed by transformers while it is read, and neither moved nor cast here.

    Raises:
        ValueError: one line that says why not.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if is_random(name):
        return random_llama(shape_named(name), device, dtype)
    options: dict[str, Any] = dict(trust_remote_code=False) | ({"revision": revision} if revision else {})
    with explained(role, name, revision):
        config = AutoConfig.from_pretrained(name, **options)
    scheme = quantisation(config, role, name)
    if dtype is None and device.type == "mps":
        choose_dtype(getattr(config, "dtype", None), device)
    if dtype is None and device.type == "cpu" and scheme is None:
        dtype = torch.float32
    if scheme and (device.type != "cpu" or find_spec("accelerate")):  # which on a CPU some schemes do without
        options["device_map"] = str(device)
    with explained(role, name, revision, scheme):
        module, report = AutoModelForCausalLM.from_pretrained(
            name, config=config, dtype=dtype or "auto", use_safetensors=True, output_loading_info=True, **options
        )
    missing = sorted(report["missing_keys"])
    if missing:  # transformers goes on with random numbers
        raise ValueError(f"the {role} {name} lacks {len(missing)} of the model's weights, for instance {missing[0]}")
    return module.eval() if scheme else module.to(device).eval()


def load_tokenizer(name: str, role: str, revision: str | None) -> PreTrainedTokenizerBase | None:
    """The tokenizer beside a model, None where a folder has none, or a draft's repository. The pocket pair's for a
    random model, which leaves most of its tokens without a text.

    Raises:
        ValueError: it is there and cannot be loaded; says why.
    """
    from transformers import AutoTokenizer

    name = str(TARGET) if is_random(name) else name
    local = Path(name).is_dir()
    if local and not any(any(Path(name).glob(pattern)) for pattern in TOKENIZER_FILES):
        return None
    try:
        with explained(role, name, revision):
            return AutoTokenizer.from_pretrained(name, trust_remote_code=False, revision=revision or "main")
    except ValueError:
        if local or role == "target":
            raise
        return None


def quantisation(config: PreTrainedConfig, role: str, name: str) -> str | None:
    """The scheme in which a checkpoint is quantised, such as "torchao"; None for plain weights.

    Raises:
        ValueError: one that this transformers does not know, and would skip.
    """
    parts = (config, config.get_text_config())
    found = next((each.quantization_config for each in parts if getattr(each, "quantization_config", None)), None)
    if found is None:
        return None
    from transformers.quantizers import AutoHfQuantizer

    described = found if isinstance(found, dict) else found.to_dict()
    method = described.get("quant_method")
    method = str(getattr(method, "value", method))
    if not AutoHfQuantizer.supports_quant_method(described):
        raise ValueError(f"the {role} {name} is quantised with {method}, which this transformers does not know")
    return method


@contextmanager
def explained(role: str, name: str, revision: str | None, scheme: str | None = None) -> Iterator[None]:
    """Turn what transformers and its hub client raise into one line."""
    try:
        yield
    except Exception as error:  # a hub client, a parser, a file and a device have no error in common
        remedy = reason(error, name, revision)
        if remedy is not None:
            raise ValueError(f"cannot load the {role} {name}: {remedy}") from None
        kind = "" if isinstance(error, OSError | ValueError | ImportError) else f"{type(error).__name__}: "
        hint = f" (it is quantised with {scheme}; install what that asks for, or give plain weights)" if scheme else ""
        raise ValueError(f"cannot load the {role} {name}: {kind}{' '.join(str(error).split())[:300]}{hint}") from error


def reason(error: BaseException, name: str, revision: str | None) -> str | None:
    """What to do about an error that is known, None for any other."""
    kinds, text = set(), str(error)
    each: BaseException | None = error
    while each is not None:
        kinds.add(type(each).__name__)
        each = each.__cause__ or each.__context__
    if "GatedRepoError" in kinds:
        return "it asks for permission: accept its licence on its page, then log in with `hf auth login`"
    if "RevisionNotFoundError" in kinds:
        return f"it has no revision {revision!r}: give a branch, a tag or a commit of that repository"
    if "RepositoryNotFoundError" in kinds:
        return "it is neither a folder here nor a repository that you may read on the hub"
    if kinds & UNREACHABLE:
        return (
            "the hub can't be reached and it was not downloaded before. To work offline give a local folder, "
            "or leave out target and draft for the pocket pair, which is in the package"
        )
    if "HFValidationError" in kinds:
        return "it is neither a folder here nor the name of a repository, such as owner/model"
    if "custom code" in text:
        return (
            "it brings Python code of its own, and none is run here: give a model whose architecture "
            "transformers has, or load it yourself and pass the object"
        )
    if "Unrecognized configuration class" in text:
        return "transformers has no causal language model of its kind"
    if "cannot be loaded with `safetensors`" in text:
        return SAFETENSORS_ONLY
    return None
