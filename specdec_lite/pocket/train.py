"""Remake the pocket pair: `python -m specdec_lite.pocket.train --work FOLDER`.

Steps: tokenizer, target, the target's own samples, the draft distilled on both. Each leaves its
result in the work folder and is skipped when that is there; target and draft also leave
checkpoints on the way. A stopped run, called again, goes on where it was.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from ..models import TransformersModel
from .corpus import encode, read_corpus, train_tokenizer
from .distil import Lessons, head_start, mix, own_samples
from .shapes import Shape
from .trainer import Plan, compile_layers, train, windows


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result."""

    vocab_size: int = 2048
    target: Shape = Shape(layers=24, width=128, heads=4)
    draft: Shape = Shape(layers=2, width=128, heads=4)
    target_plan: Plan = Plan(tokens=4_200_000)
    draft_plan: Plan = Plan(
        tokens=32_000_000, context=512, final_context=512, tokens_per_step=2048, muon_lr=0.01, adam_lr=0.002
    )
    sample_tokens: int = 100_000  # at temperature 1; half as many greedy ones join them
    variation: float = 1.0  # what the draft minimises: this much total variation
    divergence: float = 0.3  # and this much forward KL
    lesson_tokens: int = 4_000_000  # text and samples that the draft learns from
    files: int | None = None  # only the first so many source files


SMALL = Recipe(
    vocab_size=400,
    target=Shape(layers=2, width=32, heads=2),
    draft=Shape(layers=1, width=32, heads=2),
    target_plan=Plan(tokens=20_000, context=64, final_context=128, tokens_per_step=512, compile=False),
    draft_plan=Plan(tokens=20_000, context=64, final_context=64, tokens_per_step=512, compile=False),
    sample_tokens=2_000,
    lesson_tokens=20_000,
    files=60,
)


def next_token_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    """Mean cross-entropy, nats a token. tokens [rows, context + 1]"""
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits  # [rows, context, vocab]
    return cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def make_pair(recipe: Recipe, work: Path, out: Path, device: str = "cpu", root: Path | None = None) -> None:
    """Run every step that has not been done yet; write the pair to `out`/target and `out`/draft."""
    work.mkdir(parents=True, exist_ok=True)
    corpus = read_corpus(root, recipe.files)
    if not (work / "tokenizer").exists():
        train_tokenizer(corpus.train, recipe.vocab_size).save_pretrained(work / "tokenizer")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(work / "tokenizer")
    text = torch.tensor([token for row in encode(tokenizer, corpus.train) for token in row])  # [tokens]

    if not (out / "target" / "model.safetensors").exists():
        fresh = recipe.target.build(len(tokenizer), seed=0).to(device)
        train(fresh, partial(windows, text), next_token_loss, recipe.target_plan, work / "target.pt", "target")
        tokenizer.save_pretrained(out / "target")
        save(fresh, out / "target")
    # The teacher is the target as it ships, rounding included.
    target = LlamaForCausalLM.from_pretrained(out / "target", dtype="float32").to(device).eval()

    samples = work / "samples.pt"
    if not samples.exists():
        model, share = TransformersModel(target, tokenizer), recipe.sample_tokens
        made = [own_samples(model, text, share, 1.0), own_samples(model, text, share // 2, 0.0)]
        torch.save(torch.cat(made), samples)
    plan = recipe.draft_plan
    if not (work / "lessons.pt").exists():
        if plan.compile:
            compile_layers(target)
        stream = mix(text, torch.load(samples))
        lessons = Lessons.record(target, stream, plan.context, recipe.lesson_tokens // plan.context)
        torch.save({"tokens": lessons.tokens, "hidden": lessons.hidden}, work / "lessons.pt")
    lessons = Lessons(**torch.load(work / "lessons.pt"))
    draft = recipe.draft.build(len(tokenizer), seed=1).to(device)
    head_start(draft, target)
    loss = lessons.loss(target.lm_head.weight.detach(), recipe.variation, recipe.divergence, plan.compile)
    train(draft, lessons.items, loss, plan, work / "draft.pt", "draft")
    save(draft, out / "draft")


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Write transformers' own format, weights as float16."""
    copy = type(model)(model.config).half()
    copy.load_state_dict(model.state_dict())
    copy.save_pretrained(folder)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints; call again to resume")
    parser.add_argument("--out", type=Path, help="where the pair goes (default: WORK/pair)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--target-minutes", type=float, default=math.inf, help="end the target's training by then")
    parser.add_argument("--draft-minutes", type=float, default=math.inf, help="the same for the draft")
    parser.add_argument("--bfloat16", action="store_true", help="matrix products in bfloat16: faster where supported")
    parser.add_argument("--root", type=Path, help="a folder of Python source instead of the standard library")
    parser.add_argument("--small", action="store_true", help="a minute's run of every step, for tests; writes nonsense")
    args = parser.parse_args(argv)
    recipe = SMALL if args.small else Recipe()
    recipe = replace(
        recipe,
        target_plan=replace(recipe.target_plan, minutes=args.target_minutes, bfloat16=args.bfloat16),
        draft_plan=replace(recipe.draft_plan, minutes=args.draft_minutes, bfloat16=args.bfloat16),
    )
    make_pair(recipe, args.work, args.out or args.work / "pair", args.device, args.root)


if __name__ == "__main__":
    main()
