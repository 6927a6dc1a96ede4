"""Passes of one model over 1, 2, 4 ... rows, timed in turn with the memory they are compared with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import torch

from ..engines import ENGINES
from ..engines.architecture import reach
from ..models import LanguageModel, TransformersModel
from .bandwidth import products, streams
from .roofline_model import Ceiling, Shape, shape_of
from .timing import Spread, TimedCall, Timings, idle, interleave, pass_over, repeated

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NARROW = dict(hidden_size=8, intermediate_size=8, head_dim=8, vocab_size=64)  # of a model that is all dispatch


@dataclass
class Passes:
    """One engine's passes, in turn with the others of its model."""

    engine: str
    shape: Shape
    context: int
    repeats: dict[int, int]  # passes in a turn, by rows; 0 rows for the model without weights
    timings: Timings
    ceiling: Ceiling
    against: str = "read"  # or "copy": whose bandwidth a share is of

    @property
    def rows(self) -> list[int]:
        """The numbers of rows that were timed."""
        return [n for n in self.repeats if n]

    def each(self, rows: int) -> list[float]:
        """Seconds of a pass in every round."""
        turns = self.timings.seconds[_name(self.engine, rows)]
        return [turn[0] / self.repeats[rows] for turn in turns]

    def seconds(self, rows: int) -> Spread:
        return Spread.of(self.each(rows))

    def predicted(self, rows: int) -> float:
        return self.ceiling.seconds(self.shape.work(rows, self.context))

    def ratio(self, rows: int, other: int = 1) -> Spread:
        """A pass over `rows` in passes over `other`, compared within each round."""
        return Spread.of([a / b for a, b in zip(self.each(rows), self.each(other), strict=True)])

    def achieved(self, rows: int = 1) -> float:
        """Bytes that a pass needs, over the seconds that it took."""
        return self.shape.work(rows, self.context).bytes / self.seconds(rows).median

    def share(self, rows: int = 1) -> Spread:
        """Of the bandwidth that reading, or copying, a large block had in the same round."""
        needs = self.shape.work(rows, self.context).bytes
        pairs = zip(self.each(rows), self.timings.rates(self.against), strict=True)
        return Spread.of([needs / seconds / rate for seconds, rate in pairs])

    def quiet_share(self) -> float:
        """The same for one row in the quietest quarter of the rounds, where neighbours disturb least."""
        needs = self.shape.work(1, self.context).bytes
        return needs / self.seconds(1).low / Spread.of(self.timings.rates(self.against)).high


def check_room(module: PreTrainedModel, rows: Collection[int], context: int) -> None:
    """Refuse passes that no text of this model is long enough for.

    Raises:
        ValueError: says how long it may be.
    """
    longest, most = reach(module.config.get_text_config())[0], max(rows)
    if longest is not None and context + most > longest:
        raise ValueError(
            f"a context of {context} and {most} rows need {context + most} tokens, and the model's longest "
            f"text is {longest}: give a smaller --context or fewer --rows"
        )


@torch.inference_mode()
def time_passes(
    module: PreTrainedModel,
    rows: Collection[int],
    context: int,
    rounds: int = 11,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Passes]:
    """Time every engine that can run this module; the memory and the engines' dispatch take turns with them.

    Args:
        module: the model, where and how it is to run.
        rows: how many tokens a pass is given; 1 is always among them.
        context: tokens that the cache holds before.
        rounds: how often all take their turn.
        progress: called with how many turns are done, and of how many.

    Raises:
        ValueError: the model's longest text is too short, or its precision multiplies nothing here.
    """
    rows = sorted({1, *rows})
    check_room(module, rows, context)
    models = engines_of(module)
    first = next(iter(models.values()))
    repeats: dict[str, dict[int, int]] = {name: {} for name in models}
    moving = streams(first.device)
    multiplying = products(first.device, "product", first.dtype)
    if not multiplying:
        raise ValueError(f"no matrix product in {first.dtype} runs on {first.device}: choose another --dtype")
    steps = moving | multiplying
    for name, model in models.items():
        for n in rows:
            steps[_name(name, n)], repeats[name][n] = step(model, n, context)
        if (empty := hollow(module, name)) is not None:
            steps[_name(name, 0)], repeats[name][0] = step(empty, 1, 1)
    timings = interleave(steps, rounds=rounds, warm_up=1, wait=idle(first.device), progress=progress)
    bandwidth = max(median(timings.rates(name)) for name in moving)
    plain = median(timings.rates("product"))
    made = {}
    for name, model in models.items():
        fixed, throughput = 0.0, plain
        if name == "lean" and "product packed" in multiplying:
            throughput = max(plain, median(timings.rates("product packed")))
        if 0 in repeats[name]:
            fixed = median(turn[0] for turn in timings.seconds[_name(name, 0)]) / repeats[name][0]
        ceiling = Ceiling(bandwidth, throughput, fixed, overlaps=first.device.type != "cpu")
        made[name] = Passes(
            name, shape_of(model), context, repeats[name], timings, ceiling, compared_with(first.device)
        )  # fmt: skip
    return made


def engines_of(module: PreTrainedModel) -> dict[str, TransformersModel]:
    """The module under every engine that runs it where it is, transformers' own first."""
    models = {}
    for name in ENGINES:
        if name == "auto" or (name == "graph" and module.device.type != "cuda"):
            continue
        try:
            model = TransformersModel(module, engine=name)
        except ValueError:
            if name == "eager":  # which runs whatever can be run
                raise
            continue
        if model.engine.name == name:  # and did not fall back to another
            models[name] = model
    return models


def compared_with(device: torch.device) -> str:
    """Whose bandwidth a pass is held against. A GPU's is measured by copying; a processor that copies also reads
    what it overwrites, so there it is reading."""
    return "copy" if device.type == "cuda" else "read"


def _name(engine: str, rows: int) -> str:
    return f"{engine} {rows}"


def step(model: LanguageModel, rows: int, context: int) -> tuple[TimedCall, int]:
    """A turn of passes over `rows` after `context` cached tokens, and how many it makes."""
    once = pass_over(model, 1, rows, context)
    return repeated(lambda: once(0, 0), rows, idle(model.device))


def hollow(module: PreTrainedModel, engine: str) -> TransformersModel | None:
    """The same layers with next to no weights, so that its pass is all dispatch; None where none can be built.

    Its weights are rounded to float16, so that the lean engine makes one call for each product as it
    does for the module.
    """
    config = copy.deepcopy(module.config)
    try:
        for name, value in NARROW.items():
            if getattr(config, name, None) is not None:
                setattr(config, name, config.num_attention_heads * value if name == "hidden_size" else value)
        with torch.random.fork_rng(devices=[]):
            made = type(module)(config).to(module.device, torch.float16).to(module.dtype).eval()
        return TransformersModel(made, engine=engine)
    except Exception:  # sizes that this architecture ties together: the prediction then goes without
        return None
