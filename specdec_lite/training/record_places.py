"""Record how well the pocket pair agrees, place by place, along texts that the target wrote.

    python -m specdec_lite.training.record_places

For each temperature the target alone continues every prompt; then both models read each text once,
and the two distributions at every place are compared. `places.py` says what is kept.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..acceptance import overlap
from ..bench.machine import environment
from ..decoding import autoregressive
from ..loading.pair import Pair, load_pair
from ..models import LanguageModel
from ..pocket.prompts import BUILT_IN
from ..pocket.recorded import PLACES
from ..sampling.distributions import Sampling, probabilities
from ..stopping import Stop

TEMPERATURES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
NEW_TOKENS = 64
PROMPTS = (
    *BUILT_IN,
    'class Queue:\n    """First in, first out."""\n\n    def __init__(self, items=()):',
    "import re\n\ndef split_words(text):",
    'def main(argv=None):\n    parser = argparse.ArgumentParser(description="Copy files.")',
    "try:\n    import ssl\nexcept ImportError:",
    "for name in sorted(names):\n    if name.startswith('_'):",
    'def mean(values):\n    """Return the arithmetic mean of a list of numbers."""',
    "class Point:\n    def __init__(self, x, y):\n        self.x = x",
    "with open(filename, 'rb') as f:\n    data = f.read()",
    "# Tests for the date module.\n\nimport unittest\nfrom datetime import date",
)


@torch.inference_mode()
def logits_along(model: LanguageModel, text: Sequence[int], begin: int) -> Tensor:
    """What a model says before each of text[begin:], in one forward. -> [places, vocab]"""
    block = torch.tensor([list(text[:-1])], device=model.device)  # [1, tokens]
    return model.forward(block, model.new_cache(1, len(text)))[0, begin - 1 :]


def record(
    pair: Pair,
    prompts: Sequence[str] = PROMPTS,
    temperatures: Sequence[float] = TEMPERATURES,
    new_tokens: int = NEW_TOKENS,
    seed: int = 0,
) -> dict:
    """The file's content. No text stops early."""
    runs, used = [], set()
    for temperature in tqdm(temperatures, desc="temperatures", disable=len(prompts) < len(PROMPTS)):
        sampling = Sampling(temperature=temperature)
        common = dict(max_new_tokens=new_tokens, sampling=sampling, stop=Stop(), seed=seed, trace="off")
        made = autoregressive(pair.target, list(prompts), **common)
        texts = []
        for prompt, new in zip(made.trace.prompts, made.tokens, strict=True):
            read = (logits_along(model, [*prompt, *new], len(prompt)) for model in (pair.target, pair.draft))
            p_target, p_draft = (probabilities(logits, sampling) for logits in read)  # [places, vocab]
            there = torch.tensor(new).unsqueeze(1)
            ratio = p_draft.gather(1, there) / p_target.gather(1, there)  # [places, 1]
            texts.append([new, _short(ratio[:, 0].clamp_max(1)), _short(overlap(p_target, p_draft).clamp_max(1))])
            used |= {*prompt, *new}
        runs.append({"temperature": temperature, "texts": texts})
    return {
        "prompts": [pair.target.tokenizer.encode(prompt) for prompt in prompts],
        "machine": environment(),
        "date": date.today().isoformat(),
        "pieces": {token: pair.tokenizer.decode([token]) for token in sorted(used)},
        "runs": runs,
    }


def _short(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=PLACES, help="file to write (default: inside the package)")
    options = parser.parse_args(arguments)
    text = json.dumps(record(load_pair()), separators=(",", ":"), ensure_ascii=True)
    options.out.write_text(text + "\n", encoding="utf-8")
    print(f"{options.out.name}: {options.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
