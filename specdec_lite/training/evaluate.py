"""A pair's figures: bits per byte beside xz, and overlap. `python -m specdec_lite.training.evaluate [--pair FOLDER]`"""

from __future__ import annotations

import argparse
import json
import lzma
import math
from pathlib import Path

import torch
from tqdm.auto import tqdm

from ..acceptance import overlap
from ..bench.machine import environment
from ..decoding import autoregressive
from ..loading.pair import Pair, load_pair
from ..models import TransformersModel
from ..pocket.corpus import encode, read_corpus
from ..pocket.prompts import held_out_prompts
from ..sampling.distributions import Sampling, probabilities
from ..stopping import Stop


@torch.inference_mode()
def bits_per_byte(model: TransformersModel, texts: list[str], context: int = 1024, stride: int = 512) -> float:
    """What the model needs to write `texts` down, in bits per UTF-8 byte.

    Windows of `context` tokens advance by `stride`; each token is scored once, after at least
    context - stride others where the file has as many. A file begins after an end-of-text token.
    """
    end = model.tokenizer.eos_token_id
    nats, size = 0.0, 0
    for text, ids in zip(tqdm(texts, desc="bits per byte"), encode(model.tokenizer, texts), strict=True):
        ids = torch.tensor([end] + ids, device=model.device)  # [tokens]
        scored = 1
        for begin in range(0, len(ids) - 1, stride):
            window = ids[begin : begin + context + 1]
            logits = model.module(input_ids=window[None, :-1], use_cache=False).logits[0]  # [n, vocab]
            losses = torch.nn.functional.cross_entropy(logits.float(), window[1:], reduction="none")  # [n]
            nats += losses[scored - begin - 1 :].sum().item()
            scored = begin + len(window)
            if scored == len(ids):
                break
        size += len(text.encode())
    return nats / math.log(2) / size


def xz_bits_per_byte(texts: list[str]) -> float:
    """The same for xz at its strongest, over all texts in one stream."""
    data = "".join(texts).encode()
    return 8 * len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)) / len(data)


@torch.inference_mode()
def mean_overlap(pair: Pair, prompts: list[list[int]], new_tokens: int = 128, temperature: float = 1.0) -> float:
    """Mean of sum(min(p_target, p_draft)) over every place of a continuation that the target samples."""
    sampling, means = Sampling(temperature=temperature), []
    for seed, prompt in enumerate(tqdm(prompts, desc="overlap")):
        common = {"max_new_tokens": new_tokens, "sampling": sampling, "stop": Stop(), "trace": "off", "seed": seed}
        text = torch.tensor([prompt + autoregressive(pair.target, prompt, **common).tokens])  # [1, tokens]
        logits = [model.module(text.to(model.device), use_cache=False).logits[0] for model in (pair.target, pair.draft)]
        both = [probabilities(each[len(prompt) - 1 : -1], sampling) for each in logits]  # [new_tokens, vocab] each
        means.append(overlap(*both).mean().item())
    return sum(means) / len(means)


def figures(pair: Pair, files: int | None = None, prompts: int = 40) -> dict[str, float | str]:
    """All figures of the model card that do not depend on the machine's speed, and what they were measured in."""
    texts = read_corpus().held_out[:files]
    return {
        "held_out_files": len(texts),
        "held_out_bytes": sum(len(text.encode()) for text in texts),
        "target_bits_per_byte": bits_per_byte(pair.target, texts),
        "draft_bits_per_byte": bits_per_byte(pair.draft, texts),
        "xz_bits_per_byte": xz_bits_per_byte(texts),
        "mean_overlap_at_temperature_1": mean_overlap(pair, held_out_prompts(pair.tokenizer, prompts)),
        "target_parameters": pair.target.parameters,
        "draft_parameters": pair.draft.parameters,
        "dtype": str(pair.target.dtype).removeprefix("torch."),
        "machine": environment(),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", type=Path, help="a folder with target and draft in it (default: the pair that ships)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: cpu)")
    parser.add_argument("--dtype", help="float32, bfloat16, float16 (default: float32 on a CPU, else the pair's own)")
    parser.add_argument("--files", type=int, help="only the first so many held-out files")
    parser.add_argument("--prompts", type=int, default=40, help="continuations for the overlap")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args(argv)
    sources = {} if args.pair is None else {"target": args.pair / "target", "draft": args.pair / "draft"}
    pair = load_pair(**sources, device=args.device, dtype=args.dtype)
    text = json.dumps(figures(pair, args.files, args.prompts), indent=2)
    print(text)
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
