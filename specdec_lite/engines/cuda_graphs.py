"""Passes recorded once for each shape and replayed: on a GPU one launch instead of hundreds.

A recording is made for fixed shapes and fixed addresses. The cache has both: its tensors are allocated
once and only its lengths, which lie on the device, say what they hold. So a cache that is no longer used
is kept for reuse, and what was recorded over it serves the next text.
"""

from __future__ import annotations

import copy
import time
import warnings
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..kv_cache import BUCKET, KVCache, doubled
from .engine import Engine, Layers, Masks, Pass, Span
from .recording import WARM_UP, Replay, recorder_for

WIDEST = 17  # tokens a row that are verified: the largest K and the one before
CATCH_UP = 2  # tokens a row that a draft is fed at most; of longer blocks the last logits are wanted for a prompt
LEAST = 4 * BUCKET  # slots of the smallest cache
SPARE = 4  # idle caches, kept for reuse; the one unused for longest goes first


@dataclass(frozen=True)
class RecordedPass:
    """One pass at one shape."""

    tokens: Tensor  # [batch, n], where a replay reads
    replay: Replay
    logits: Tensor  # [batch, n or 1, vocab], where it writes


class RecordedCache(KVCache):
    """A cache whose tensors stay where they are, and the passes recorded over it."""

    def __init__(self, batch: int, capacity: int, device: torch.device) -> None:
        super().__init__(batch, capacity, device)
        self.record = recorder_for(device)  # of its own: what it keeps goes when the cache goes
        self.recordings: dict[Hashable, RecordedPass] = {}

    def check_room(self, n: int) -> None:
        super().check_room(n)
        self.visible = min(self.capacity, doubled(BUCKET, self.visible))

    @torch.inference_mode()
    def clear(self) -> None:
        """As if new: the mask would hide what the last text left, but not NaN."""
        self.lengths = [0] * self.batch
        self.length.zero_()
        for kept in (kept for pair in self.layers.values() for kept in pair):
            kept.zero_()


class GraphEngine(Engine):
    """Replays another engine's passes.

    A pass that can't be recorded (it reads values on the host, say) is reported in one line, and from then on
    the other engine runs as it is.

    Args:
        inner: the engine that is recorded.
        who: for the progress bar and the warning, such as LlamaForCausalLM.
    """

    def __init__(self, inner: Engine, who: str) -> None:
        self.inner, self.who = inner, who
        self.copied, self.causal = inner.copied, inner.causal
        self.spare: list[RecordedCache] = []
        self.trouble: str | None = None  # why nothing is recorded any more
        self.recorded, self.seconds = 0, 0.0  # how many passes, and what recording them took

    @property
    def name(self) -> str:  # type: ignore[override]  # it changes when nothing can be recorded
        return self.inner.name if self.trouble else "graph"

    def __call__(self, tokens: Tensor, positions: Tensor, masks: Masks, cache: KVCache, last: bool) -> Tensor:
        return self.inner(tokens, positions, masks, cache, last)

    def run_span(self, x: Tensor, positions: Tensor, masks: Masks, cache: KVCache, last: bool, span: Span) -> Layers:
        """As the other engine runs it: not recorded."""
        return self.inner.run_span(x, positions, masks, cache, last, span)

    def new_cache(self, batch: int, capacity: int, device: torch.device) -> KVCache:
        """An idle one, or a new one; it comes back by itself when nobody holds it any more."""
        if self.trouble:
            return self.inner.new_cache(batch, capacity, device)
        capacity = doubled(LEAST, capacity)
        fits = [each for each in self.spare if (each.batch, each.capacity) == (batch, capacity)]
        with torch.inference_mode(False):  # a length may be moved by whoever holds the cache, in any mode
            kept = fits[-1] if fits else RecordedCache(batch, capacity, device)
        self.spare = [each for each in self.spare if each is not kept]
        lent = copy.copy(kept)  # the same tensors and recordings, lengths of its own
        lent.clear()
        weakref.finalize(lent, _take_back, weakref.ref(self), kept).atexit = False
        return lent

    def run(self, whole: Pass, tokens: Tensor, cache: KVCache, last: bool, kind: Hashable) -> Tensor:
        prompt = tokens.shape[1] > (CATCH_UP if last else WIDEST)  # it comes but once
        # what is recorded masks a chain
        if self.trouble or prompt or cache.is_tree or not isinstance(cache, RecordedCache):
            return super().run(whole, tokens, cache, last, kind)
        return self._replay(whole, tokens, cache, last, kind)

    @torch.inference_mode()
    def _replay(self, whole: Pass, tokens: Tensor, cache: RecordedCache, last: bool, kind: Hashable) -> Tensor:
        n = tokens.shape[1]
        cache.check_room(n)
        key = n, cache.visible, last, kind
        if key not in cache.recordings and not self._record(key, whole, tokens, cache, last):
            return super().run(whole, tokens, cache, last, kind)
        made = cache.recordings[key]
        made.tokens.copy_(tokens)
        made.replay()
        return made.logits.clone()  # the next replay writes over them

    def _record(self, key: Hashable, whole: Pass, tokens: Tensor, cache: RecordedCache, last: bool) -> bool:
        from tqdm.auto import tqdm  # only here, so that importing the package stays quick

        began, n = time.perf_counter(), tokens.shape[1]
        static = tokens.clone()
        title = f"recording a pass of {self.who} over {cache.batch} x {n} tokens"
        bar = tqdm(total=WARM_UP + 1, desc=title, unit="pass", leave=False, delay=1)  # a quick one goes unseen

        def call() -> Tensor:
            cache.assign_slots(n)
            logits = whole(static, cache, last)
            bar.update()
            return logits

        try:
            replay, logits = cache.record(call)
        except Exception as error:  # torch, a kernel or a driver: they have no error in common
            self.trouble = (str(error).strip().splitlines() or [type(error).__name__])[0]
            warnings.warn(
                f"no graph of {self.who} can be recorded ({self.trouble}): it runs with engine={self.inner.name!r}",
                stacklevel=2,
            )
            return False
        finally:
            bar.close()
        cache.recordings[key] = RecordedPass(static, replay, logits)
        self.recorded, self.seconds = self.recorded + 1, self.seconds + time.perf_counter() - began
        return True

    def forget(self) -> None:
        """Let go of the idle caches and of what was recorded over them."""
        self.spare.clear()


def _take_back(engine: Callable[[], GraphEngine | None], kept: RecordedCache) -> None:
    if (owner := engine()) is not None and not owner.trouble:
        owner.spare = [*owner.spare, kept][-SPARE:]
