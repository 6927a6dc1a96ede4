"""Who takes part in `specdec bench`: this library's two ways of decoding, and transformers' own.

Ends of text are switched off everywhere, so that all make the same number of tokens.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..decoding import autoregressive, speculative
from ..drafters import drafter_named
from ..loading.pair import Pair
from ..models import TransformersModel
from ..sampling.distributions import Sampling
from ..stopping import Stop
from ..trace import Round, Trace


@dataclass
class Runner:
    """One way of decoding. `run` maps a prompt and a seed to new tokens."""

    family: str  # "own naive", "own speculative", "own lookup", "transformers generate", "transformers assisted", ...
    variant: str  # "", "K=4", "default", ...
    run: Callable[[list[int], int], Sequence[int]]
    k: int | None = None
    rounds: dict[tuple[int, ...], list[Round]] = field(default_factory=dict)  # of our own, by prompt and seed

    @property
    def name(self) -> str:
        return f"{self.family} {self.variant}".strip()

    @property
    def trace(self) -> Trace:
        """Everything that our own speculative runs did."""
        return Trace([each for rounds in self.rounds.values() for each in rounds], self.k or 0)


def own(pair: Pair, ks: Sequence[int], new: int, sampling: Sampling, kind: str | None = None) -> list[Runner]:
    """Naive decoding, and speculative decoding for each K: by the drafter of that kind, or the pair's own."""
    drafter = pair.drafter if kind is None else drafter_named(kind, pair.draft, pair.head)
    common = {"max_new_tokens": new, "sampling": sampling, "stop": Stop()}

    def with_k(k: int) -> Runner:
        def run(prompt: list[int], seed: int) -> list[int]:
            made = speculative(pair.target, drafter, prompt, k=k, seed=seed, **common)
            runner.rounds[seed, *prompt] = made.trace.rounds
            return made.tokens

        runner = Runner(f"own {kind or 'speculative'}", f"K={k}", run, k)
        return runner

    def naive(prompt: list[int], seed: int) -> list[int]:
        return autoregressive(pair.target, prompt, seed=seed, **common).tokens

    return [Runner("own naive", "", naive), *(with_k(k) for k in ks)]


def theirs(pair: Pair, ks: Sequence[int], new: int, sampling: Sampling) -> list[Runner]:
    """transformers' `generate`, and its assisted generation: K fixed, its heuristic schedule, its default.

    Where the pair has no draft model the text drafts, by its prompt lookup.

    A fixed K also switches off the confidence at which its draft stops early; its default drafts
    up to 20 tokens, as long as each has a probability of at least 0.4.
    """

    def schedule(kind: str, k: int) -> dict[str, Any]:
        return {
            "num_assistant_tokens": k, "num_assistant_tokens_schedule": kind, "assistant_confidence_threshold": 0.0
        }  # fmt: skip

    def assisted(variant: str, draft: dict[str, Any], k: int | None = None) -> Runner:
        return Runner("transformers assisted", variant, runner(draft), k)

    def runner(draft: dict[str, Any] | None) -> Callable[[list[int], int], list[int]]:
        return lambda prompt, seed: generate(pair, new, sampling, draft, prompt, seed)

    if pair.draft is None:
        lookup = [Runner("transformers lookup", f"K={k}", runner({"prompt_lookup_num_tokens": k}), k) for k in ks]
        return [Runner("transformers generate", "", runner(None)), *lookup]
    return [
        Runner("transformers generate", "", runner(None)),
        *(assisted(f"K={k}", schedule("constant", k), k) for k in ks),
        assisted("heuristic", schedule("heuristic", 5)),
        assisted("default", {}),
    ]


def generate(
    pair: Pair, new: int, sampling: Sampling, draft: dict[str, Any] | None, prompt: list[int], seed: int
) -> list[int]:
    """One call of `generate`; assisted when there are settings for the draft. -> new tokens"""
    from transformers import GenerationConfig

    ids = torch.tensor([prompt], device=pair.target.device)
    wanted: dict[str, Any] = {"do_sample": False}
    if not sampling.greedy:
        wanted = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0, "top_p": 1.0}
    config = GenerationConfig(max_new_tokens=new, min_new_tokens=new, eos_token_id=None, pad_token_id=0, **wanted)
    extra = draft or {}
    if draft is not None and pair.draft is not None:
        extra = {"assistant_model": bare(pair.draft, **draft)}
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        out = bare(pair.target).generate(ids, attention_mask=torch.ones_like(ids), generation_config=config, **extra)
    return out[0, len(prompt) :].tolist()


def bare(model: TransformersModel, **generation: Any) -> Any:
    """The same module and weights with a generation config of its own, without an end of text.

    `generate` fills gaps from the module's config, reads the assistant's schedule there, and
    writes to it: a fresh one for each call keeps runners apart and the user's module as it was.
    """
    from transformers import GenerationConfig

    module = copy.copy(model.module)
    module.generation_config = GenerationConfig(pad_token_id=0, **generation)
    return module
