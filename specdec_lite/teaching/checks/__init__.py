"""Exercises that check themselves: `from specdec_lite.teaching import check`, then `check.overlap(my_overlap)`.

One file a notebook. Every check is a name here, and its worked solution a function of the same name in
`notebooks/solutions/`.
"""

from ._framework import Case, Check, Verdict
from .draft_then_verify import accepted_prefix, greedy_speculative, rows_that_judge, slots_to_rewind, tokens_to_feed
from .proof import another_rule, keep_chance, overlap, residual, speculative_round, tokens_a_round

__all__ = [
    "Case",
    "Check",
    "Verdict",
    "accepted_prefix",
    "another_rule",
    "greedy_speculative",
    "keep_chance",
    "overlap",
    "residual",
    "rows_that_judge",
    "slots_to_rewind",
    "speculative_round",
    "tokens_a_round",
    "tokens_to_feed",
]
