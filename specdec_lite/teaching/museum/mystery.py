"""Decoders without a label, for a student to tell by the alarms alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from ...models import LanguageModel
from .exhibits import MUSEUM
from .setup import Exhibit, Setup

CASES = (3, 20, 21, 22, 24, 25)  # between them every class, every alarm, and a rule that keeps little on purpose


AMONG = 14  # the first exhibits: one that is added changes no mystery


@dataclass(frozen=True)
class Mystery:
    """An exhibit that does not say which. Its parts are in there for who opens it: the alarms need not."""

    number: int

    @property
    def make(self) -> Callable[[LanguageModel, LanguageModel], Setup]:
        return opened(self.number).make

    @property
    def name(self) -> str:
        return f"mystery {self.number}"

    def __repr__(self) -> str:
        return self.name


def mystery(number: int) -> Mystery:
    """The unlabelled decoder with this number; the same number is always the same decoder.

    Raises:
        ValueError: not a whole number of at least 0.
    """
    if not isinstance(number, int) or number < 0:
        raise ValueError(f"a mystery has a whole number of at least 0, got {number!r}")
    return Mystery(number)


def opened(number: int) -> Exhibit:
    """Which exhibit it is."""
    return MUSEUM[int.from_bytes(sha256(b"museum %d" % number).digest()[:8]) % AMONG]
