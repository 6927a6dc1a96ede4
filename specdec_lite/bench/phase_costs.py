"""The time of every piece of a round, taken in place: the same engine, sampling, caches and places in a text.

The pieces are called one by one, in the order of a round, since a model whose weights were just pushed
out of a cache by another is slower than the same model called in a row. Nothing is kept of what they
make, so no text is decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..decoding import start
from ..draft import Draft, Drafter, one_hot_draft
from ..loop import Run
from ..models import LanguageModel
from ..sampling.distributions import Sampling
from ..stopping import Stop
from ..transfer import Outcome, PhaseTimer
from .timing import idle

Parts = dict[str, float]  # seconds of "draft", "verify", "sample" and "synchronise"


@dataclass(frozen=True)
class PhaseCosts:
    """Seconds at one place of a text."""

    by_drafted: dict[int, Parts]  # for each number of drafted tokens, 0 included
    catch_up: float  # what feeding the draft two tokens costs beyond feeding it one


@torch.inference_mode()
def time_phases(
    target: LanguageModel,
    drafter: Drafter,
    texts: Sequence[list[int]],
    cut: int,
    ks: Sequence[int],
    *,
    sampling: Sampling,
    seed: int = 0,
) -> PhaseCosts:
    """Time the pieces of a round for each k, as they are when every text is `cut` tokens short of its end.

    Raises:
        ValueError: the texts have no max(ks) tokens beyond the cut; and as for `speculative`.
    """
    if cut < max(*ks, 2):
        raise ValueError(f"pieces of up to {max(ks)} drafted tokens need as many after the cut, got {cut}")
    seen = [text[:-cut] for text in texts]
    run = start(
        target, drafter, seen, k=max(ks), max_new_tokens=cut, sampling=sampling, stop=Stop(), seed=seed
    )  # fmt: skip
    following = [text[-cut:] for text in texts]  # stand in for drafts that a drafter does not offer
    for k in (max(ks), min(ks)):  # the prompt that was just read has left the processor's caches to itself
        _round(run, seen, following, k)
    by_drafted = {k: _round(run, seen, following, k) for k in (0, *ks)}
    return PhaseCosts(by_drafted, _catch_up(run, texts, cut))


def _round(run: Run, seen: list[list[int]], following: list[list[int]], k: int) -> Parts:
    run.randomness.begin_round()
    clock = PhaseTimer(run.target.device)
    draft = run.session.propose(seen, k, run.sampler, run.randomness) if k else run.empty_draft
    clock.end("draft")
    if draft.tokens.shape[1] < k:
        draft = one_hot_draft([row[:k] for row in following], run.target.vocab_size, run.target.device)
        clock.end("aside")
    block = torch.cat([run.last, draft.tokens], 1)  # [batch, k + 1]
    clock.end("rest")
    logits = run.target.forward(block, run.cache)  # [batch, k + 1, vocab]
    clock.end("verify")
    outcome = _judge(run, seen, draft, logits)
    clock.end("sample")
    outcome.to_host(run.detail)
    clock.end("synchronise")
    run.cache.rewind([k + 1] * len(seen))
    times = clock.seconds()
    return {part: times[part] for part in ("draft", "verify", "sample", "synchronise")}


def _judge(run: Run, seen: list[list[int]], draft: Draft, logits: Tensor) -> Outcome:
    """Distributions, verdicts and a last token, as `Run.round` makes them."""
    p_target = run.sampler.probabilities(logits, seen, draft.tokens)  # [batch, k + 1, vocab]
    verify = p_target, draft.probs, draft.tokens, None
    pass_probs = run.rule.pass_probs(*verify)  # [batch, k]
    accepted, uniform = run.randomness.accept(pass_probs, run.rule.accepted_length)
    p_next = run.rule.next_token_probs(*verify, accepted)  # [batch, vocab]
    token = run.randomness.sample(p_next)
    return Outcome(draft.tokens, draft.probs, p_target, pass_probs, uniform, accepted, token, p_next.sum(-1), logits)


def _catch_up(run: Run, texts: Sequence[list[int]], cut: int) -> float:
    """A proposal after full acceptance against one after a rejection, both of one token.

    Nothing for a head, which reads all new places at once, few or many.
    """
    if getattr(run.session, "states", ()):
        return 0.0
    seconds, wait = [], idle(run.target.device)  # nothing here is brought to the host, which would wait
    for behind in (1, 2):  # a drafter that proposed one token has fed none of what comes after it
        run.randomness.begin_round()
        run.session.propose([text[:-cut] for text in texts], 1, run.sampler, run.randomness)
        run.randomness.begin_round()
        wait()
        clock = PhaseTimer(run.target.device)
        run.session.propose([text[: len(text) - cut + behind] for text in texts], 1, run.sampler, run.randomness)
        clock.end("draft")
        wait()
        seconds.append(clock.seconds()["draft"])
    return seconds[1] - seconds[0]


def time_opening(target: LanguageModel, drafter: Drafter, texts: Sequence[list[int]], new: int, k: int) -> float:
    """Seconds in which the drafter reads the prompts, once a run."""
    wait, cache = idle(target.device), target.new_cache(len(texts), max(map(len, texts)) + new + k + 1)
    wait()
    clock = PhaseTimer(target.device)
    with torch.inference_mode():
        drafter.open(texts, target, cache)
    clock.end("opening")
    wait()
    return clock.seconds()["opening"]
