"""Llamas as a handful of figures, from which every matrix follows: published ones, and two of this library."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Llama:
    """The figures of one shape."""

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

    @property
    def table(self) -> int:
        """Weights of the embedding, and as many of the head."""
        return self.vocab * self.hidden

    @property
    def norms(self) -> int:
        return (2 * self.layers + 1) * self.hidden

    @property
    def parameters(self) -> int:
        """All weights, tied ones once."""
        return self.layers * self.layer_weights + self.norms + self.table * (1 if self.tied else 2)


_HERD = "Llama team, The Llama 3 Herd of Models, arXiv:2407.21783, table 3"
_CARD = "Meta, model card and config.json of Llama 3.2, September 2024"
PUBLISHED = {
    made.name: made
    for made in (
        Llama("Llama 1B", 16, 2048, 8192, 32, 8, 64, 128_256, tied=True, source=_CARD),
        Llama("Llama 3B", 28, 3072, 8192, 24, 8, 128, 128_256, tied=True, source=_CARD),
        Llama("Llama 8B", 32, 4096, 14336, 32, 8, 128, 128_256, tied=False, source=_HERD),
        Llama("Llama 70B", 80, 8192, 28672, 64, 8, 128, 128_256, tied=False, source=_HERD),
    )
}
# A processor reads the wide one from memory, in float32 some 310 MB of it, and drafts for it with the narrow one.
OWN = {
    made.name: made
    for made in (
        Llama("Llama wide", 6, 1024, 2816, 16, 16, 64, 2048, tied=False, source="of this library"),
        Llama("Llama narrow", 2, 256, 704, 4, 4, 64, 2048, tied=False, source="of this library"),
    )
}
