"""The roofline: each kernel takes as long as its slower need, memory or arithmetic, and starting them costs too.

Counted from a model's own parameters, so it holds for any decoder of transformers. A pass over n
rows (n tokens of one text: 1 in naive decoding, K + 1 in verification, many in prefill)

- reads every weight once, however many rows share it; of an embedding only the n rows asked for,
  unless the head is the same matrix; of experts those that the rows are expected to choose;
- reads the keys and values of the context, writes those of its n tokens;
- multiplies and adds once for each weight of a matrix and row, and twice (scores, mixing) for each
  head, feature, row and visible token.

Linear layers and attention are different kernels, and kernels run one after another: the arithmetic of
a linear layer hides behind the reading of its own weights, never behind that of the keys and values. So
a pass takes max(memory, arithmetic) of its linear layers, plus the same of its attention.

Activations are left out: a handful of rows of them stays in the cache. Williams, Waterman,
Patterson, "Roofline: an insightful visual performance model", CACM 52 (2009).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..engines.cpu_kernels import half
from ..engines.quantised import quantised_layers
from ..kv_cache import KVCache

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..models import TransformersModel


@dataclass(frozen=True)
class Work:
    """What one pass asks of the machine, and what of it is attention's; the rest is the linear layers'."""

    bytes: float
    flops: float
    attention_bytes: float = 0.0  # keys and values, read and written
    attention_flops: float = 0.0  # scores and mixing

    @property
    def intensity(self) -> float:
        """Operations a byte, of the whole pass."""
        return self.flops / self.bytes

    @property
    def kernels(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Bytes and operations of the linear layers, then of attention."""
        attention = self.attention_bytes, self.attention_flops
        return (self.bytes - attention[0], self.flops - attention[1]), attention


@dataclass(frozen=True)
class Shape:
    """What a pass has to read and to multiply; weights in numbers and in bytes."""

    parameters: int  # all of them, tied ones once
    weights: int  # read in every pass
    weight_bytes: int
    multiplied: int  # weights of matrices that every row is multiplied with
    looked_up: int  # weights of embeddings of which a row is read for each token
    row_bytes: int  # read from them for each token
    expert_weights: int  # of all experts
    expert_bytes: int
    experts: int  # in a layer, 0 where there are none
    chosen: int  # of them by each row
    cache_width: int  # numbers kept for each token: keys and values of all layers
    cache_bytes: int  # the same in bytes
    attended: int  # multiplications for each row and visible token: all layers' heads times their features

    def work(self, rows: int, context: int) -> Work:
        """A pass over `rows` new tokens after `context` cached ones.

        Raises:
            ValueError: no rows, or a negative context.
        """
        if rows < 1 or context < 0:
            raise ValueError(f"needs at least 1 row and a context of 0 or more, got {rows} and {context}")
        # Experts chosen evenly: each is missed by a row with chance 1 - chosen / experts.
        met = 1 - (1 - self.chosen / self.experts) ** rows if self.experts else 0.0
        share = self.chosen / self.experts if self.experts else 0.0
        read = self.weight_bytes + rows * self.row_bytes + met * self.expert_bytes
        seen = context + (rows + 1) / 2  # visible to a row, on average: causal inside the block
        multiplied = self.multiplied + share * self.expert_weights
        kept = (context + 2 * rows) * self.cache_bytes  # the context read, new tokens written and read
        mixed = 2 * rows * seen * self.attended
        return Work(read + kept, 2 * rows * multiplied + mixed, attention_bytes=kept, attention_flops=mixed)

    def stored(self, size: int) -> Shape:
        """The same model with numbers of `size` bytes, cache included."""
        factor = size * self.cache_width / self.cache_bytes
        return replace(
            self, weight_bytes=size * self.weights, expert_bytes=size * self.expert_weights,
            row_bytes=round(factor * self.row_bytes), cache_bytes=size * self.cache_width,
        )  # fmt: skip


@dataclass(frozen=True)
class Ceiling:
    """What a machine gives: bytes a second, operations a second, and seconds to start a pass."""

    bandwidth: float
    throughput: float
    fixed: float = 0.0
    overlaps: bool = False  # whether the next operation is started while this one runs, as on a GPU

    @property
    def ridge(self) -> float:
        """Operations a byte at which memory and arithmetic take the same time."""
        return self.throughput / self.bandwidth

    def parts(self, work: Work) -> dict[str, float]:
        """Seconds that each need alone would take."""
        return {
            "memory": work.bytes / self.bandwidth,
            "arithmetic": work.flops / self.throughput,
            "dispatch": self.fixed,
        }

    def seconds(self, work: Work) -> float:
        """The predicted time of a pass: kernels one after another, each as long as its slower need."""
        running = sum(max(read / self.bandwidth, flops / self.throughput) for read, flops in work.kernels)
        return max(running, self.fixed) if self.overlaps else running + self.fixed

    def waits_for(self, work: Work) -> str:
        """What most of the predicted time is: "memory", "arithmetic" or "dispatch"."""
        spent = {"memory": 0.0, "arithmetic": 0.0, "dispatch": self.fixed}
        for read, flops in work.kernels:
            memory, arithmetic = read / self.bandwidth, flops / self.throughput
            spent["memory" if memory >= arithmetic else "arithmetic"] += max(memory, arithmetic)
        if self.overlaps and spent["memory"] + spent["arithmetic"] > self.fixed:
            spent["dispatch"] = 0.0  # hidden behind the kernels
        return max(spent, key=spent.__getitem__)


def shape_of(model: TransformersModel) -> Shape:
    """Count a model. One token is fed to see what its cache keeps; nothing of it is changed.

    Raises:
        RuntimeError: the parts do not add up to the module's parameters.
    """
    module, config = model.module, model.module.config.get_text_config()
    tables, experts = _tables(module), _experts(module)
    head = module.get_output_embeddings()
    # a plain head reads its weight whole, whatever a lookup takes
    tied = {id(head.weight)} if isinstance(head, nn.Linear) else set()
    count = dict.fromkeys(("weights", "weight_bytes", "multiplied", "looked_up", "row_bytes"), 0)
    count |= dict.fromkeys(("expert_weights", "expert_bytes"), 0)
    packed = _packs(model)
    for name, weight in module.named_parameters():  # names a tied weight once
        size = 2 if packed and weight.ndim == 2 and half_exact(weight) else weight.element_size()
        if id(weight) in tables and id(weight) not in tied:
            count["looked_up"] += weight.numel()
            count["row_bytes"] += weight.shape[-1] * weight.element_size()
        elif name in experts:
            count["expert_weights"] += weight.numel()
            count["expert_bytes"] += weight.numel() * size
        else:
            count["weights"] += weight.numel()
            count["weight_bytes"] += weight.numel() * size
            count["multiplied"] += weight.numel() if weight.ndim > 1 else 0
    for layer in quantised_layers(module):
        count["weights"] += layer.count
        count["multiplied"] += layer.count
        count["weight_bytes"] += layer.codes.nbytes + layer.scales.nbytes
    if count["weights"] + count["looked_up"] + count["expert_weights"] != model.parameters:
        raise RuntimeError(f"counted {count}, which is not the module's {model.parameters} parameters")
    number = _first(config, "num_local_experts", "num_experts", "n_routed_experts") if experts else 0
    chosen = _first(config, "num_experts_per_tok", "top_k") if experts else 0
    return Shape(
        parameters=model.parameters, experts=number, chosen=chosen, **_cache(model, config.num_attention_heads), **count
    )  # fmt: skip


def half_exact(weight: torch.Tensor) -> bool:
    """Whether float16 holds this weight exactly."""
    return bool(torch.equal(weight.half().float(), weight))


def _packs(model: TransformersModel) -> bool:
    """Whether the lean engine keeps exact float16 weights in 2 bytes here (see `engines.cpu_kernels`)."""
    cpu = model.device.type == "cpu" and model.dtype == torch.float32
    engine = getattr(model.engine, "inner", model.engine)  # what a graph engine records
    return cpu and engine.name == "lean" and half(torch.ones(16, 16), None) is not None


def _tables(module: PreTrainedModel) -> set[int]:
    """Weights of which a token reads one row."""
    return {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}


def _experts(module: PreTrainedModel) -> set[str]:
    """Names of the parameters that belong to one expert among several."""
    return {name for name, _ in module.named_parameters() if ".experts." in name}


def _first(config: Any, *names: str) -> int:
    """The first of these settings that a configuration has."""
    return next((getattr(config, name) for name in names if isinstance(getattr(config, name, None), int)), 0)


@torch.inference_mode()
def _cache(model: TransformersModel, heads: int) -> dict[str, int]:
    """Feed one token and look at what is kept of it, in all layers."""
    cache = KVCache(1, 1, model.device)  # the engine's own may have room for more
    model.forward(torch.zeros(1, 1, dtype=torch.long, device=model.device), cache)
    pairs = cache.layers.values()
    features = sum(keys.shape[-1] + values.shape[-1] for keys, values in pairs)
    return {
        "cache_width": sum(kept.numel() for pair in pairs for kept in pair),
        "cache_bytes": cache.nbytes,
        "attended": heads * features,
    }
