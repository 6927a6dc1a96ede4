"""How well a drafter agrees with the target, place by place along a text that the target wrote.

Both distributions are asked for at every place with the text as it is, so nothing is censored: no
place goes unjudged because a guess before it failed. `theory.replay` makes rounds of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..acceptance import overlap
from ..decoding import start
from ..draft import Drafter
from ..drafters.eagle import EagleDrafter
from ..drafters.prompt_lookup import PromptLookupDrafter
from ..engines.engine import Span
from ..loop import Run
from ..models import LanguageModel
from ..sampling.distributions import Sampler, Sampling
from ..sampling.processors import Processors
from ..stopping import Stop
from ..theory.replay import running
from .synthetic import SyntheticDrafter

CHUNK = 32  # places judged at once: whole distributions are large


@dataclass(frozen=True)
class Agreement:
    """One text's places."""

    chances: list[list[float]]  # [place][i]: chance that token i of a draft begun there was accepted, given the text
    overlap: list[float | None]  # of both distributions at each place; None where nothing was proposed


@torch.inference_mode()
def agreement(
    target: LanguageModel, drafter: Drafter, text: Sequence[int], prompt: int, sampling: Sampling, k: int, seed: int = 0
) -> Agreement:
    """Compare drafter and target along text[prompt:], for drafts of up to k tokens.

    A drafter that looks its guesses up is asked for all k at once, since it goes on from where it
    found them; a head is unrolled along the text; any other is asked for one at each place. Where acceptance is
    synthetic, it is what was set.
    Errors as for `speculative`.
    """
    if isinstance(drafter, EagleDrafter):
        return _head_agreement(target, drafter, text, prompt, sampling, k)
    if isinstance(drafter, SyntheticDrafter):
        set_to = [drafter.rule.agreement] * (len(text) - prompt)
        return Agreement(running(set_to, k), list(set_to))
    chain = isinstance(drafter, PromptLookupDrafter)
    new = list(text[prompt:])
    run = start(
        target, drafter, [list(text[:prompt])], k=k if chain else 1, max_new_tokens=len(new), sampling=sampling,
        stop=Stop(), seed=seed, trace="off",
    )  # fmt: skip
    shared: list[float | None] = []
    chances: list[list[float]] = []
    for begin in range(0, len(new), CHUNK):
        end = min(begin + CHUNK, len(new))
        p_target = _target(run, text[:prompt], new[:end], begin)  # [places, vocab]
        for place in range(begin, end):
            run.randomness.begin_round()
            draft = run.session.propose([list(text[: prompt + place])], run.k, run.sampler, run.randomness)
            if draft.tokens.shape[1] == 0:
                shared.append(None)
                chances.append([])
                continue
            here, p_draft = p_target[place - begin], draft.probs[0, 0]  # [vocab] each
            shared.append(min(1.0, overlap(here, p_draft).item()))
            if chain:
                chances.append(_matches(draft.tokens[0].tolist(), new[place:]))
            else:
                chances.append([_kept(here, p_draft, new[place])])
    if not chain:
        chances = running([each[0] for each in chances], k)
    return Agreement(chances, shared)


def _head_agreement(
    target: LanguageModel, drafter: EagleDrafter, text: Sequence[int], prompt: int, sampling: Sampling, k: int
) -> Agreement:
    """For a head, whose later tokens depend on its own earlier states: k tokens from every place, along the text."""
    if prompt < 2:
        raise ValueError(f"a head reads places that a token follows: a prompt needs two tokens, got {prompt}")
    head, sampler = drafter.head, Sampler(sampling, Processors([[]]))
    ids = torch.tensor([list(text)], device=target.device)  # [1, n]
    made = target.forward_span(ids, target.new_cache(1, len(text)), Span(0, target.layers, head.states))
    given = torch.cat([made.hidden[i] for i in head.states], -1).to(head.fc.weight.dtype)
    words = target.module.get_input_embeddings().weight[ids].to(given.dtype)

    def probabilities(logits: Tensor) -> Tensor:
        return sampler.probabilities(logits, [list(text)], ids[:, :0])[0]  # [places, vocab]

    p_target, written = probabilities(made.logits[:, prompt - 1 : -1]), ids[0, prompt:]  # of every place
    chances: list[list[float]] = [[] for _ in written]
    for step, state in enumerate(head.unroll(given, words, min(k, len(written)))):
        begun = len(written) - step  # drafts that have a token `step` in the text: one from each of the first places
        logits = drafter.runner.logits(state[:, prompt - 2 : prompt - 2 + begun], target.vocab_size)
        p_draft, here = probabilities(logits), p_target[step:]  # [begun, vocab]
        if step == 0:
            shared = torch.minimum(here, p_draft).sum(-1).clamp_max(1.0).tolist()
        for place in range(begun):
            chances[place].append(_kept(here[place], p_draft[place], int(written[place + step])))
    return Agreement(chances, shared)


def _target(run: Run, prompt: Sequence[int], new: list[int], begin: int) -> Tensor:
    """The target's distributions at new[begin:], which its cache follows. -> [places, vocab]"""
    seen = [prompt[-1], *new]
    block = torch.tensor([seen[begin : len(new)]], device=run.target.device)
    logits = run.target.forward(block, run.cache)  # [1, places, vocab]
    before = torch.tensor([new[:-1]], dtype=torch.long, device=run.target.device)
    return run.sampler.probabilities(logits, [list(prompt)], before)[0]


def _kept(p_target: Tensor, p_draft: Tensor, token: int) -> float:
    """Chance that the token was drafted and accepted, given that it was written."""
    wanted, drafted = p_target[token].item(), p_draft[token].item()
    if wanted == 0:  # greedy, and two widths of a forward disagree about a tie
        return float(drafted > 0)
    return min(1.0, drafted / wanted)


def _matches(proposed: Sequence[int], written: Sequence[int]) -> list[float]:
    """1 for each proposed token until the first that differs, 0 from there on."""
    same = [one == other for one, other in zip(proposed, written, strict=False)]
    same += [False] * (len(proposed) - len(same))
    until = same.index(False) if False in same else len(same)
    return [1.0] * until + [0.0] * (len(proposed) - until)
