"""Models on paper: what a pass of a large Llama reads and multiplies, counted from a handful of published figures.

The other half of `roofline.shape_of`, which counts a model that is there. Tests compare the two.
"""

from __future__ import annotations

from ..loading.llamas import PUBLISHED, Llama
from .roofline_model import Shape


class Blueprint(Llama):
    """The figures of a Llama, and what a pass makes of them."""

    def shape(self, bits: int = 16) -> Shape:
        """What a pass reads and multiplies, with `bits` for each weight.

        Keys and values, and the rows of an embedding, take 2 bytes a number, or 4 where weights have 32 bits:
        formats shorter than 16 bits are for the weights that stay.
        """
        number = 4 if bits == 32 else 2
        multiplied = self.layers * self.layer_weights + self.table  # the head is always multiplied
        cache_width = 2 * self.layers * self.kv_heads * self.head_dim
        return Shape(
            parameters=self.parameters,
            weights=multiplied + self.norms,
            weight_bytes=multiplied * bits // 8 + self.norms * number,
            multiplied=multiplied,
            looked_up=0 if self.tied else self.table,
            row_bytes=0 if self.tied else self.hidden * number,
            expert_weights=0, expert_bytes=0, experts=0, chosen=0,
            cache_width=cache_width,
            cache_bytes=cache_width * number,
            attended=2 * self.layers * self.heads * self.head_dim,
        )  # fmt: skip


LLAMAS = {name: Blueprint(**vars(figures)) for name, figures in PUBLISHED.items()}
