"""Models on paper: what a pass of a large Llama reads and multiplies, counted from a handful of published figures.

The other half of `roofline.shape_of`, which counts a model that is there. Tests compare the two.
"""

from __future__ import annotations

from dataclasses import dataclass

from .roofline import Shape


@dataclass(frozen=True)
class Blueprint:
    """The figures from which every matrix of a Llama follows."""

    name: str
    layers: int
    hidden: int  # width of the stream between layers
    inner: int  # width inside the feed-forward part
    heads: int
    kv_heads: int  # heads that keep keys and values; fewer than `heads` where queries share them
    head_dim: int
    vocab: int
    tied: bool  # whether embedding and head are one matrix
    source: str

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """The seven matrices of one layer: outputs and inputs of each."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "queries": (queries, self.hidden), "keys": (keys, self.hidden), "values": (keys, self.hidden),
            "attention output": (self.hidden, queries), "gate": (self.inner, self.hidden),
            "up": (self.inner, self.hidden), "down": (self.hidden, self.inner),
        }  # fmt: skip

    @property
    def layer_weights(self) -> int:
        """Weights of one layer's matrices."""
        return sum(rows * columns for rows, columns in self.matrices.values())

    def shape(self, bits: int = 16) -> Shape:
        """What a pass reads and multiplies, with `bits` for each weight.

        Keys and values, and the rows of an embedding, take 2 bytes a number, or 4 where weights have 32 bits:
        formats shorter than 16 bits are for the weights that stay.
        """
        number = 4 if bits == 32 else 2
        table, norms = self.vocab * self.hidden, (2 * self.layers + 1) * self.hidden
        multiplied = self.layers * self.layer_weights + table  # the head is always multiplied
        cache_width = 2 * self.layers * self.kv_heads * self.head_dim
        return Shape(
            parameters=multiplied + norms + table * (not self.tied),
            weights=multiplied + norms,
            weight_bytes=multiplied * bits // 8 + norms * number,
            multiplied=multiplied,
            looked_up=0 if self.tied else table,
            row_bytes=0 if self.tied else self.hidden * number,
            expert_weights=0, expert_bytes=0, experts=0, chosen=0,
            cache_width=cache_width,
            cache_bytes=cache_width * number,
            attended=2 * self.layers * self.heads * self.head_dim,
        )  # fmt: skip


def _llama(name: str, *figures: int, tied: bool, source: str) -> Blueprint:
    return Blueprint(name, *figures, vocab=128_256, tied=tied, source=source)


_HERD = "Llama team, The Llama 3 Herd of Models, arXiv:2407.21783, table 3"
_CARD = "Meta, model card and config.json of Llama 3.2, September 2024"
LLAMAS = {
    made.name: made
    for made in (
        _llama("Llama 1B", 16, 2048, 8192, 32, 8, 64, tied=True, source=_CARD),
        _llama("Llama 3B", 28, 3072, 8192, 24, 8, 128, tied=True, source=_CARD),
        _llama("Llama 8B", 32, 4096, 14336, 32, 8, 128, tied=False, source=_HERD),
        _llama("Llama 70B", 80, 8192, 28672, 64, 8, 128, tied=False, source=_HERD),
    )
}
