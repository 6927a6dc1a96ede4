"""Remake the pocket pair: `python -m specdec_lite.training.train --work FOLDER`; `--size large` makes one for a GPU.

Steps: tokenizer, target, the target's own samples, the draft distilled on both. Each leaves its
result in the work folder and is skipped when that is there; target and draft also leave
checkpoints on the way. A stopped run, called again, goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from ..bench.machine import environment
from ..models import TransformersModel
from ..pocket.corpus import installed_packages, read_corpus, some_of, standard_library, token_stream, train_tokenizer
from .distil import Lessons, head_start, mix, own_samples
from .recipes import SIZES, Recipe
from .trainer import compile_layers, train, windows

# By when a step must have ended, as a share of all the time; the rest is for writing files.
ENDS = {"text": 0.15, "target": 0.6, "samples": 0.73, "lessons": 0.81, "draft": 0.97}


@dataclass(frozen=True)
class Deadline:
    """The minutes of a whole run, shared out among its steps."""

    total: float = math.inf
    began: float = field(default_factory=time.monotonic)

    def left(self, step: str) -> float:
        """Minutes until this step must end; a moment where it is late already, so that a pair comes out."""
        return max(0.05, ENDS[step] * self.total - (time.monotonic() - self.began) / 60)


def next_token_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    """Mean cross-entropy, nats a token. tokens [rows, context + 1]"""
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits  # [rows, context, vocab]
    return cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def make_pair(
    recipe: Recipe,
    work: Path,
    out: Path,
    device: str = "cpu",
    roots: Sequence[Path] | None = None,
    minutes: float = math.inf,
) -> None:
    """Run every step that has not been done yet; write the pair to `out`/target and `out`/draft.

    Args:
        roots: folders of Python source instead of the recipe's own.
        minutes: for everything; each step is cut short to keep to it.
    """
    deadline = Deadline(minutes)
    work.mkdir(parents=True, exist_ok=True)
    own = [standard_library(), *(installed_packages() if recipe.packages else [])]
    texts = read_corpus(roots or own, recipe.files, recipe.most_bytes).train
    if not (work / "tokenizer").exists():
        chosen = some_of(texts, recipe.tokenizer_bytes)
        train_tokenizer(chosen, recipe.vocab_size).save_pretrained(work / "tokenizer")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(work / "tokenizer")
    text = token_stream(tokenizer, texts, deadline.left("text"))  # [tokens]
    log = Log(work / "steps.json")
    log("text", {"files": len(texts), "bytes": sum(len(each.encode()) for each in texts), "tokens": len(text)})

    if not (out / "target" / "model.safetensors").exists():
        fresh = recipe.target.build(len(tokenizer), seed=0).to(device)
        plan, items = recipe.target_plan.within(deadline.left("target")), partial(windows, text.to(device))
        log("target", train(fresh, items, next_token_loss, plan, work / "target.pt", "target"))
        tokenizer.save_pretrained(out / "target")
        save(fresh, out / "target", recipe.dtype)
        del fresh, items  # a GPU's memory is for the lessons now
    # The teacher is the target as it ships, rounding included.
    target = LlamaForCausalLM.from_pretrained(out / "target", dtype=recipe.teacher_dtype).to(device).eval()

    if not (work / "samples.pt").exists():
        made = write_samples(recipe, TransformersModel(target, tokenizer), text, deadline)
        log("samples", {"tokens": len(made)})
        torch.save(made, work / "samples.pt")
    lessons = make_lessons(recipe, target, mix(text, torch.load(work / "samples.pt")), work / "lessons.pt", deadline)
    log("lessons", {"tokens": lessons.tokens.numel()})

    draft = recipe.draft.build(len(tokenizer), seed=1).to(device)
    head_start(draft, target)
    plan = recipe.draft_plan.within(deadline.left("draft"))
    compiled = plan.compile and target.device.type == "cpu"  # a GPU has the distances sooner than the compiler
    loss = lessons.loss(target.lm_head.weight.detach(), recipe.variation, recipe.divergence, compiled)
    log("draft", train(draft, lessons.items, loss, plan, work / "draft.pt", "draft"))
    save(draft, out / "draft", recipe.dtype)
    log("all", {"minutes": (time.monotonic() - deadline.began) / 60, "machine": environment()})


class Log:
    """A line for each step, and a file with all of them."""

    def __init__(self, file: Path) -> None:
        self.file, self.steps = file, {}

    def __call__(self, step: str, figures: dict[str, object]) -> None:
        self.steps[step] = figures
        shown = [f"{name} {f'{value:.4g}' if isinstance(value, float) else value}" for name, value in figures.items()]
        print(f"{step}: {', '.join(shown)}", flush=True)
        self.file.write_text(json.dumps(self.steps, indent=2) + "\n", encoding="utf-8")


def write_samples(recipe: Recipe, model: TransformersModel, text: Tensor, deadline: Deadline) -> Tensor:
    """What the target writes itself: two thirds at temperature 1, a third greedily. -> [tokens]"""
    tokens, rows = recipe.sample_tokens, recipe.sample_rows
    drawn = own_samples(model, text, tokens, 1.0, rows, minutes=deadline.left("samples") * 2 / 3)
    return torch.cat([drawn, own_samples(model, text, tokens // 2, 0.0, rows, minutes=deadline.left("samples"))])


def make_lessons(recipe: Recipe, target: LlamaForCausalLM, stream: Tensor, file: Path, deadline: Deadline) -> Lessons:
    """Read from the file, or recorded. On a GPU in a quarter of its free memory, and without the file:
    that many gigabytes take longer to write than to make."""
    if file.exists():
        return Lessons(**torch.load(file))
    on_gpu, context = target.device.type == "cuda", recipe.draft_plan.context
    count, minutes = recipe.lesson_tokens // context, deadline.left("lessons")
    if on_gpu:
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(target.device)
        return Lessons.record(target, stream, context, count, rows=32, minutes=minutes, most_bytes=free / 4)
    if recipe.draft_plan.compile:
        compile_layers(target)
    lessons = Lessons.record(target, stream, context, count, minutes=minutes)
    torch.save({"tokens": lessons.tokens, "hidden": lessons.hidden}, file)
    return lessons


def save(model: LlamaForCausalLM, folder: Path, dtype: torch.dtype) -> None:
    """Write transformers' own format, weights rounded to `dtype`."""
    copy = type(model)(model.config).to(dtype)
    copy.load_state_dict(model.state_dict())
    copy.save_pretrained(folder)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints; call again to resume")
    parser.add_argument("--out", type=Path, help="where the pair goes (default: WORK/pair)")
    parser.add_argument(
        "--size",
        choices=SIZES,
        default="pocket",
        help="pocket: the pair that ships; small: a minute's run of every step, for tests, writes nonsense; "
        "large: 440 million weights and 31, for a data-centre GPU (default: pocket)",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="for everything; every step is cut to keep to it"
    )
    parser.add_argument("--target-minutes", type=float, default=math.inf, help="end the target's training by then")
    parser.add_argument("--draft-minutes", type=float, default=math.inf, help="the same for the draft")
    parser.add_argument("--bfloat16", action="store_true", help="matrix products in bfloat16: faster where supported")
    parser.add_argument(
        "--root",
        type=Path,
        action="append",
        help="a folder of Python source instead of the recipe's own; give it again for another one",
    )
    args = parser.parse_args(argv)
    recipe = SIZES[args.size].within(args.target_minutes, args.draft_minutes)
    recipe = recipe.in_bfloat16() if args.bfloat16 else recipe
    make_pair(recipe, args.work, args.out or args.work / "pair", args.device, args.root, args.minutes)


if __name__ == "__main__":
    main()
