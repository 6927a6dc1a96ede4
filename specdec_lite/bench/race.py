"""The race behind `specdec demo`: one prompt decoded naively and speculatively, timed in turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ..decoding import Decoded, autoregressive, speculative, stream
from ..draft import Drafter
from ..drafters import drafter_named
from ..loading.pair import Pair
from ..models import TransformersModel
from ..pocket.prompts import BUILT_IN
from ..prompts import Prompt
from ..sampling.distributions import Sampling
from ..stopping import Stop
from ..trace import Round
from .machine import environment
from .timing import Spread, Timings, forward_seconds, idle, interleave

QUESTION = "Why is the sky blue? Explain it to a child in a few sentences."
SMALL = 100e6  # weights; a forward of a smaller model waits for dispatch, on any machine of today

NOTHING_SHARED = 0.8  # of the time of one forward for each token


@dataclass(frozen=True)
class RaceSettings:
    """What the command line says."""

    prompt: str | None = None  # None: one that is built in
    drafter: str = "model"
    k: int = 4
    temperature: float = 0.0
    seed: int = 0
    max_new_tokens: int = 128
    repeats: int = 5

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature)


def rounds_of(pair: Pair, settings: RaceSettings, drafter: Drafter | None) -> Iterator[Round]:
    """The rounds of one decoding as they come, up to the model's own end of text. No drafter: naive."""
    return stream(
        pair.target, drafter, prompt_of(pair, settings), k=settings.k, max_new_tokens=settings.max_new_tokens,
        sampling=settings.sampling, seed=settings.seed,
    )  # fmt: skip


@dataclass(frozen=True)
class Race:
    """Both ways of decoding at the same length, timed in turn."""

    settings: RaceSettings
    naive: Decoded
    fast: Decoded
    timings: Timings
    forward: dict[str, dict[int, float]]  # seconds of one forward, by role and tokens fed

    @property
    def speed_up(self) -> Spread:
        return self.timings.ratio("speculative", "naive")

    @property
    def parting(self) -> int | None:
        """The first place where the two texts differ, None where they are identical."""
        pairs = zip(self.naive.tokens, self.fast.tokens, strict=True)
        return next((i for i, (one, other) in enumerate(pairs) if one != other), None)

    @property
    def draft_price(self) -> float:
        """Drafting a token, in forwards of the target over one; 0 where the text drafts."""
        if self.settings.drafter in ("exit", "head"):  # timed in the run itself
            seconds = self.fast.trace.time_split()["draft"] / sum(len(each.drafted) for each in self.fast.trace.rounds)
            return seconds / self.forward["target"][1]
        return self.forward["draft"][1] / self.forward["target"][1] if "draft" in self.forward else 0.0

    @property
    def verify_price(self) -> float:
        """A forward of the target over k + 1 tokens, in such forwards over one."""
        return self.forward["target"][self.settings.k + 1] / self.forward["target"][1]


def prompt_of(pair: Pair, settings: RaceSettings) -> Prompt:
    """The prompt, to a chat model as a user's message."""
    if not pair.chats:
        return BUILT_IN[0] if settings.prompt is None else settings.prompt
    return [{"role": "user", "content": QUESTION if settings.prompt is None else settings.prompt}]


def race(pair: Pair, settings: RaceSettings, length: int, warm_up: int = 1) -> Race:
    """Decode `length` tokens both ways, `repeats` times in turn, and time single forwards."""
    prompt = prompt_of(pair, settings)
    drafter, last = drafter_named(settings.drafter, pair.draft, pair.head), {}
    common = {"max_new_tokens": length, "sampling": settings.sampling, "stop": Stop(), "seed": settings.seed}

    def naive(case: int, turn: int) -> int:
        last["naive"] = autoregressive(pair.target, prompt, **common)
        return len(last["naive"].tokens)

    def fast(case: int, turn: int) -> int:
        last["fast"] = speculative(pair.target, drafter, prompt, k=settings.k, **common)
        return len(last["fast"].tokens)

    wait = idle(pair.target.device)
    timings = interleave({"naive": naive, "speculative": fast}, rounds=settings.repeats, warm_up=warm_up, wait=wait)
    models = models_of(pair, settings)
    fed = {role: [1, settings.k + 1] if role == "target" else [1] for role in models}
    forward = forward_seconds(models, fed, rounds=15)
    return Race(settings, last["naive"], last["fast"], timings, forward)


def models_of(pair: Pair, settings: RaceSettings) -> dict[str, TransformersModel]:
    """The models that run, by role."""
    return pair.models if settings.drafter == "model" else {"target": pair.target}


def account(result: Race) -> str:
    """What a round costs and what it brings, in forwards of the target over one token."""
    k, brings = result.settings.k, result.fast.trace.tokens_per_round_with_bonus
    costs = k * result.draft_price + result.verify_price
    lookup = result.settings.drafter == "lookup"
    drafting = "next to nothing" if lookup else f"{k} x {result.draft_price:.2f}"
    return (
        f"Counted in naive steps (the target over 1 token), a round costs {drafting} for drafting and "
        f"{result.verify_price:.2f} for verifying them (the target over {k + 1} tokens), about {costs:.1f} together, "
        f"and brings {brings:.1f} tokens."
    )


def cause(result: Race, pair: Pair, pocket: bool) -> str:
    """One line on what a forward waits for, since that is what speculation shares among tokens."""
    fed = result.settings.k + 1
    price = f"Verifying {fed} tokens costs {result.verify_price:.2f} naive steps, not {fed}:"
    if result.verify_price > NOTHING_SHARED * fed:
        return (
            f"Verifying {fed} tokens costs {result.verify_price:.2f} naive steps: here a forward's time grows with its "
            "tokens, so that they share nothing, and speculation has nothing to gain from."
        )
    if pocket or pair.target.parameters < SMALL:
        return (
            f"{price} a model this small waits for dispatch, once a forward, "
            "where a large one waits for its weights to come from memory, once a forward too."
        )
    return (
        f"{price} a large model waits for its weights to come from memory, once a forward (a small one for dispatch)."
    )


def race_report(result: Race, pair: Pair, pocket: bool) -> dict[str, Any]:
    """Everything a program may want to know; the values fit JSON."""
    trace, settings, timings = result.fast.trace, result.settings, result.timings
    models = models_of(pair, settings)
    sides = {"naive": result.naive, "speculative": result.fast}
    made = {
        name: {
            "tokens_per_second": timings.rate(name).median,
            "seconds": [sum(each) for each in timings.seconds[name]],
            "tokens": side.tokens,
            "text": side.text,
        }
        for name, side in sides.items()
    }
    return {
        "machine": environment(),
        "pair": {role: {"layers": each.layers, "parameters": each.parameters} for role, each in models.items()},
        "settings": asdict(settings),
        **made,
        "rounds": len(trace.rounds),
        "kinds": dict(Counter(kind for each in trace.rounds for kind in each.kept_kinds())),
        "tokens_per_round": trace.tokens_per_round_with_bonus,
        "acceptance": number(trace.accepted_per_judged),
        "mean_overlap": number(trace.mean_overlap),
        "speed_up": asdict(result.speed_up),
        "identical": result.parting is None if settings.sampling.greedy else None,
        "forward_seconds": result.forward,
        "cause": cause(result, pair, pocket),
    }


def number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if value != value else value
