"""The text every machine has: the Python standard library's own source, and if wanted its installed packages'.

One file in twenty, chosen by a hash of its path, is held out. Nothing trained here
(tokenizer, target, draft) sees a held-out file; bits per byte and the benchmarks use only those.
"""

from __future__ import annotations

import hashlib
import math
import os
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"  # always token 0: it closes every file and stops decoding
HELD_OUT_ONE_IN = 20

# Folders that are not source a person wrote: installed packages, generated tables, mangled test data.
SKIPPED = {"site-packages", "dist-packages", "encodings", "pydoc_data", "__pycache__"}

# A token never crosses these: a line break with the indentation after it, a word with the one
# space or sign before it, two digits, a run of signs. Indentation becomes one token.
SPLIT = r"\n+ *|[^\n\w]?[^\W\d]+|\d{1,2}| ?[^\s\w]+|[^\S\n]+"


@dataclass(frozen=True)
class Corpus:
    """Source files as text, split by file."""

    train: list[str]
    held_out: list[str]
    held_out_names: list[str]


def standard_library() -> Path:
    """The folder that holds the running interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def installed_packages() -> list[Path]:
    """The folders that hold the running interpreter's installed packages."""
    return sorted({Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")})


def _hash(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest(), 16)


def is_held_out(name: str) -> bool:
    """Whether a file is held out. `name` is its path below its root, with forward slashes."""
    return _hash(name) % HELD_OUT_ONE_IN == 0


def source_files(root: Path | None = None) -> list[Path]:
    """Every `.py` file below `root` (default: the standard library), sorted, skipped folders left out."""
    root = root or standard_library()
    found = []
    for folder, inner, names in os.walk(root):
        inner[:] = set(inner) - SKIPPED  # not entered: installed packages are many
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(found)


def read_source(path: Path) -> str:
    """A file's text; empty where it is not UTF-8 (a few test files are broken on purpose)."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def read_corpus(
    roots: Path | Sequence[Path] | None = None, limit: int | None = None, most_bytes: int | None = None
) -> Corpus:
    """Read every source file below `roots` (default: the standard library), split by `is_held_out`.

    A training file whose text is also a held-out file's is left out: packages carry copies of each other.

    Args:
        roots: a folder or several, read one after another.
        limit: only the first so many files of each, for a quick trial.
        most_bytes: stop when so much training text is read. A root that is not read whole is read in
            the order of a hash, so that no package is preferred.

    Raises:
        FileNotFoundError: no source below `roots` (some distributions ship bytecode only).
    """
    roots = [roots or standard_library()] if roots is None or isinstance(roots, Path) else list(roots)
    train, held_out, names = [], [], []
    files, size = 0, 0
    for root in roots:
        found = [(path.relative_to(root).as_posix(), path) for path in source_files(root)[:limit]]
        if most_bytes is not None:
            found.sort(key=lambda each: _hash(each[0]))
        files += len(found)
        for name, path in found:
            if most_bytes is not None and size >= most_bytes:
                break
            text = read_source(path)
            if text and is_held_out(name):
                held_out.append(text)
                names.append(name)
            elif text:
                train.append(text)
                size += len(text.encode())
    copies = set(held_out)
    train = [text for text in train if text not in copies]
    if not train or not held_out:
        raise FileNotFoundError(
            f"{', '.join(map(str, roots))}: {files} Python files, too few for a corpus: "
            "install the standard library's source, or pass a folder of Python code"
        )
    return Corpus(train, held_out, names)


def some_of(texts: Sequence[str], most_bytes: int | None) -> list[str]:
    """Texts evenly spread over all of them, about `most_bytes` together; all without a bound."""
    size = sum(len(text.encode()) for text in texts)
    step = 1 if most_bytes is None else max(1, round(size / most_bytes))
    return list(texts[::step])


def train_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE over `texts`: any string encodes, and decodes back to itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TEXT, clean_up_tokenization_spaces=False
    )


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, each closed by the end-of-text token."""
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [row + [tokenizer.eos_token_id] for row in ids]


def token_stream(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], minutes: float = math.inf) -> torch.Tensor:
    """All texts one after another, each closed by the end-of-text token; what `minutes` do not suffice for is left out.

    -> [tokens]
    """
    deadline = time.monotonic() + 60 * minutes
    rows: list[torch.Tensor] = []
    for first in range(0, len(texts), 256):
        if rows and time.monotonic() > deadline:
            break
        rows += map(torch.tensor, encode(tokenizer, list(texts[first : first + 256])))
    return torch.cat(rows)
