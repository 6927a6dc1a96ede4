"""The key/value cache: slots, lengths and a mask.

Slots are allocated once, zeroed. New tokens are written at `length`, which `advance` raises and `rewind`
lowers; nothing is concatenated or copied, and a stale slot is harmless because the mask hides it. Each row has
its own length, on the device, so rewinding rows by different amounts costs no synchronisation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .transfer import dispatch, send
from .tree import Tree, tree_of

BUCKET = 64  # attention looks at a multiple of this many slots, so that shapes change rarely


def doubled(least: int, wanted: int) -> int:
    """The first of least, 2 least, 4 least ... that reaches `wanted`: few sizes, so that few are recorded."""
    while least < wanted:
        least *= 2
    return least


class KVCache:
    """Keys and values of every layer for a batch of rows.

    A layer's tensors are [batch, kv_heads, capacity, head_dim], so that attention reads what a head
    keeps in one go, and are made at the layer's first write. `update` and `get_seq_length` are what
    transformers' models call.

    Args:
        batch: rows.
        capacity: slots a row. Nothing may be written beyond; `reserve` says so beforehand.
        device: where lengths and slots live.
    """

    is_compileable = False  # asked by transformers
    of: object = None  # what the model was when the text began

    def __init__(self, batch: int, capacity: int, device: torch.device | str = "cpu") -> None:
        self.batch, self.capacity, self.device = batch, capacity, torch.device(device)
        self.position_limit = capacity  # no token has this position or a later one
        self.length = torch.zeros(batch, dtype=torch.long, device=device)  # [batch]
        self.lengths = [0] * batch  # the host's copy, so that attention can look at fewer slots
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._first: dict[int, Tensor] = {}  # by heads: the first slot of each, among all, [batch, heads, 1]
        self._slots = torch.arange(capacity, device=device)  # [capacity]
        self._tree: Tree | None = None  # what the slots from `_root` on hold; None while a row is one chain

    def reserve(self, n: int) -> None:
        """Make room for n new tokens a row: fixes their positions and slots until `advance`.

        Raises:
            ValueError: they would not fit.
        """
        self.check_room(n)
        self.assign_slots(n)

    def check_room(self, n: int) -> None:
        """The host's part of `reserve`: whether they fit, and how many slots attention looks at."""
        reach = max(self.lengths) + n
        if reach > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} tokens a row, and {reach} are wanted")
        self.visible = min(self.capacity, -(-reach // BUCKET) * BUCKET)

    def assign_slots(self, n: int) -> None:
        """The device's part: positions and slots, from `length` alone, or of a tree's next nodes from their depth."""
        self.places = self.length.unsqueeze(1) + self._slots[:n]  # [batch, n], slots of a row
        self.positions = self.places  # in the text
        if self._tree is not None:
            self.positions = self._root + send(self._tree.depths[-n:], self.device) - 1  # [batch, n]
        self._at: dict[int, Tensor] = {}  # by heads: slots to write to, among all

    def mask(self, dtype: torch.dtype, window: int | None = None) -> Tensor:
        """Additive attention mask for the new tokens, [batch, 1, n, visible].

        Token i of a row sees slot j when j is not after it and, with a window, less than
        `window` positions before it; in a tree, when j holds the text or one of its ancestors. Additive, since eager
        attention adds what it is given.
        """
        slots = self.slot_positions()  # [visible], of a tree [batch, 1, visible]
        at = (self.positions if self.is_tree else self.places).unsqueeze(-1)  # [batch, n, 1]
        hidden = self._off_path(self._tree) if self._tree else slots > at  # [batch, n, visible]
        if window is not None:
            hidden |= slots <= at - window
        lowest = torch.finfo(dtype).min
        return torch.zeros(hidden.shape, dtype=dtype, device=self.device).masked_fill_(hidden, lowest).unsqueeze(1)

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write new keys and values [batch, kv_heads, n, head_dim]; return all visible ones."""
        if layer_idx not in self.layers:
            self.layers[layer_idx] = (self._allocate(keys), self._allocate(values))
        kept_keys, kept_values = self.layers[layer_idx]  # [batch, kv_heads, capacity, head_dim]
        for kept, new in ((kept_keys, keys), (kept_values, values)):
            kept.view(-1, kept.shape[3]).index_copy_(0, self._write_at(kept.shape[1]), new.flatten(0, 2))
        return kept_keys[:, :, : self.visible], kept_values[:, :, : self.visible]

    def _allocate(self, like: Tensor) -> Tensor:
        return like.new_zeros(self.batch, like.shape[1], self.capacity, like.shape[3])

    def _write_at(self, heads: int) -> Tensor:
        """Where the new tokens go, when all slots of all heads and rows stand in line. -> [batch * heads * n]"""
        if heads not in self._at:
            if heads not in self._first:
                every = torch.arange(self.batch * heads, device=self.device)
                self._first[heads] = every.view(self.batch, heads, 1) * self.capacity
            self._at[heads] = (self._first[heads] + self.places.unsqueeze(1)).flatten()
        return self._at[heads]

    def branch(self, parents: tuple[int, ...]) -> None:
        """From here on slots hold a tree's nodes, until `keep_paths` or `rewind`.

        Args:
            parents: of the nodes already fed since the tree began, and of those that follow now. Node -1 is the
                last token before the tree.
        """
        if self._tree is None:
            self._root = self.length.clone().unsqueeze(1)  # [batch, 1], the slot of node 0
        self._tree = tree_of(parents)

    @property
    def is_tree(self) -> bool:
        return self._tree is not None

    def slot_positions(self) -> Tensor:
        """Where in the text the token of each visible slot stands: [visible], or of a tree [batch, 1, visible]."""
        slots = self._slots[: self.visible]
        if self._tree is None:
            return slots
        node, inside = self._nodes(self._tree)
        depths = send(self._tree.depths, self.device)  # [nodes]
        return torch.where(inside, self._root + depths[node] - 1, slots).unsqueeze(1)

    def _nodes(self, tree: Tree) -> tuple[Tensor, Tensor]:
        """The node in each visible slot, and whether there is one. [batch, visible] both"""
        node = self._slots[: self.visible] - self._root
        return node.clamp(0, len(tree) - 1), (node >= 0) & (node < len(tree))

    def _off_path(self, tree: Tree) -> Tensor:
        """Whether a visible slot holds neither the text nor an ancestor of a new node. [batch, n, visible]"""
        node, inside = self._nodes(tree)
        on_path = dispatch(tree.is_on_path[-self.places.shape[1] :], self.device)  # [n, nodes]
        seen = on_path[:, node].transpose(0, 1)  # [batch, n, visible]
        return ~torch.where(inside.unsqueeze(1), seen, (self._slots[: self.visible] < self._root).unsqueeze(1))

    def keep_paths(self, paths: list[list[int]]) -> int:
        """Of the tree, keep one path a row, side by side; the cache holds a chain again.

        Returns how many tokens a row it is longer than before the tree: those of the longest path. Shorter rows are
        padded with what `rewind` has to forget.
        """
        assert self._tree is not None, "there is no tree to keep a path of"
        longest = max(map(len, paths))
        padded = [path + [0] * (longest - len(path)) for path in paths]
        source = self._root + send(padded, self.device)  # [batch, longest], slots
        target = self._root + self._slots[:longest]
        for kept in (kept for pair in self.layers.values() for kept in pair):  # [batch, kv_heads, capacity, head_dim]
            index = source[:, None, :, None].expand(-1, kept.shape[1], -1, kept.shape[3])
            kept.scatter_(2, target[:, None, :, None].expand_as(index), kept.gather(2, index))
        self.rewind([len(self._tree) - longest] * self.batch)
        self._tree = None
        return longest

    def advance(self, n: int) -> None:
        """Keep the n tokens that were written."""
        self.length += n  # in place: a recorded pass reads it where it is
        self.lengths = [length + n for length in self.lengths]

    def rewind(self, tokens: list[int]) -> None:
        """Forget the last `tokens[row]` tokens of each row."""
        if any(tokens):
            self.length -= send(tokens, self.device)
            self.lengths = [length - n for length, n in zip(self.lengths, tokens, strict=True)]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """The tokens that the longest row holds (transformers asks)."""
        return max(self.lengths)

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """The same, as transformers asks when it makes a mask by itself."""
        return self.get_seq_length(layer_idx)

    def get_mask_sizes(self, *_: object) -> tuple[int, int]:
        """How many slots attention looks at, and the first of them (transformers asks)."""
        return self.visible, 0

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(t.nbytes for pair in self.layers.values() for t in pair)
