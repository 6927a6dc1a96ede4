"""Three recipes for a pair: the one that ships, a toy for tests, and a large one for a data-centre GPU."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from .trainer import Plan

CONTEXT = 1024


@dataclass(frozen=True)
class Shape:
    """Depth and width. A deep, narrow target and a draft of one layer: while a forward waits for
    dispatch its time goes with the number of layers, and hardly with their width."""

    layers: int
    width: int
    heads: int

    def build(self, vocab_size: int, seed: int) -> LlamaForCausalLM:
        """A fresh model. What writes to the residual stream starts at zero, so depth is harmless at first."""
        config = LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=self.width,
            intermediate_size=3 * self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = LlamaForCausalLM(config)
        with torch.no_grad():
            for layer in model.model.layers:
                layer.self_attn.o_proj.weight.zero_()
                layer.mlp.down_proj.weight.zero_()
        return model


def new_target(vocab_size: int = 2048) -> LlamaForCausalLM:
    return Shape(layers=24, width=128, heads=4).build(vocab_size, seed=0)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result. Without other words, the shipped pair's."""

    vocab_size: int = 2048
    target: Shape = Shape(layers=24, width=128, heads=4)
    draft: Shape = Shape(layers=2, width=128, heads=4)
    target_plan: Plan = Plan(tokens=4_200_000)
    draft_plan: Plan = Plan(
        tokens=32_000_000, context=512, final_context=512, tokens_per_step=2048, muon_lr=0.01, adam_lr=0.002
    )
    sample_tokens: int = 100_000  # at temperature 1; half as many greedy ones join them
    sample_rows: int = 64  # texts that the target writes at once
    variation: float = 1.0  # what the draft minimises: this much total variation
    divergence: float = 0.3  # and this much forward KL
    lesson_tokens: int = 4_000_000  # text and samples that the draft learns from
    files: int | None = None  # only the first so many source files of each folder
    packages: bool = False  # the installed packages' source too
    most_bytes: int | None = None  # of training text
    tokenizer_bytes: int | None = None  # of that, what the tokenizer is trained on
    dtype: torch.dtype = torch.float16  # of the saved weights

    @property
    def teacher_dtype(self) -> torch.dtype:
        """What the target computes in while it writes and teaches: what it will be used in."""
        return torch.bfloat16 if self.dtype == torch.bfloat16 else torch.float32

    def within(self, target_minutes: float = math.inf, draft_minutes: float = math.inf) -> Recipe:
        """The same with the time of both trainings bounded, besides what bounds it already."""
        plans = {"target_plan": target_minutes, "draft_plan": draft_minutes}
        return replace(self, **{name: getattr(self, name).within(minutes) for name, minutes in plans.items()})

    def in_bfloat16(self) -> Recipe:
        """The same with matrix products in bfloat16."""
        plans = {name: replace(getattr(self, name), bfloat16=True) for name in ("target_plan", "draft_plan")}
        return replace(self, **plans)


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

# Deep rather than wide: a pass over few rows waits for its launches, a layer at a time. 4,096 tokens hold an
# eighth more text each than 2,048; 8,192 would add a tenth and double the head, which is a fifth of the draft.
# Windows of one shape for target and draft, so that what was compiled for the one serves the other.
LARGE = Recipe(
    vocab_size=4096,
    target=Shape(layers=32, width=1024, heads=16),  # 440 million weights
    draft=Shape(layers=2, width=1024, heads=16),  # 31 million
    target_plan=Plan(
        tokens=60_000_000,
        context=1024,
        final_context=1024,
        tokens_per_step=16_384,
        adam_lr=0.002,
        checkpoint_minutes=math.inf,  # 3.5 GB take longer to write than they are worth in a run of minutes
        bfloat16=True,
    ),
    draft_plan=Plan(
        tokens=120_000_000,
        context=1024,
        final_context=1024,
        tokens_per_step=16_384,
        muon_lr=0.01,
        adam_lr=0.001,
        bfloat16=True,
    ),
    sample_tokens=400_000,
    sample_rows=256,
    lesson_tokens=8_000_000,
    packages=True,
    most_bytes=64_000_000,  # 20 million tokens: about what the minutes suffice for
    tokenizer_bytes=8_000_000,
    dtype=torch.bfloat16,
)

SIZES = {"pocket": Recipe(), "small": SMALL, "large": LARGE}
