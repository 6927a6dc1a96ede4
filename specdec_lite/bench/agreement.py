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
from ..drafters.prompt_lookup import PromptLookupDrafter
from ..loop import Run
from ..models import LanguageModel
from ..sampling.distributions import Sampling
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
    found them; any other for one at each place. Where acceptance is synthetic, it is what was set.
    Errors as for `speculative`.
    """
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
