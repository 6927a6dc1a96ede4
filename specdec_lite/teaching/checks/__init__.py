"""Exercises that check themselves: `from specdec_lite.teaching import check`, then `check.overlap(my_overlap)`.

One file a notebook. Every check is a name here, and its worked solution a function of the same name in
`notebooks/solutions/`.
"""

from ._framework import Case, Check, Verdict
from .acceptance import accepted_per_judged, interval, overlap_at, rate_by_position, what_changed
from .bug_museum import chances_in_turn, diagnose, goes_on, triage, wrong_line
from .counting import batch_cost, free_rows, layer_weights, ridge_point, step_bytes, verify_intensity
from .draft_then_verify import accepted_prefix, greedy_speculative, rows_that_judge, slots_to_rewind, tokens_to_feed
from .naive import draw, greedy_with_cache, softmax, texts_that_fit, token_forwards
from .proof import another_rule, keep_chance, overlap, residual, speculative_round, tokens_a_round
from .tuning import adaptive_k, best_k, break_even, mean_tokens, speed_up

__all__ = [
    "Case",
    "Check",
    "Verdict",
    "accepted_per_judged",
    "accepted_prefix",
    "adaptive_k",
    "another_rule",
    "batch_cost",
    "best_k",
    "break_even",
    "chances_in_turn",
    "diagnose",
    "draw",
    "free_rows",
    "goes_on",
    "greedy_speculative",
    "greedy_with_cache",
    "interval",
    "keep_chance",
    "layer_weights",
    "mean_tokens",
    "overlap",
    "overlap_at",
    "rate_by_position",
    "residual",
    "ridge_point",
    "rows_that_judge",
    "slots_to_rewind",
    "softmax",
    "speculative_round",
    "speed_up",
    "step_bytes",
    "texts_that_fit",
    "token_forwards",
    "tokens_a_round",
    "tokens_to_feed",
    "triage",
    "verify_intensity",
    "wrong_line",
    "what_changed",
]
