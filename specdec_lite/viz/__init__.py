"""Pictures of a run: pure figure functions, and thin controls over them. plotly loads when a figure is made."""

from .figures import k_sentence, k_sweep, recorded_race, show
from .theme import KINDS
from .timeline import race
from .tokens import counts, tokens_html, tokens_table
from .widgets import KExplorer

__all__ = [
    "KINDS",
    "KExplorer",
    "counts",
    "k_sentence",
    "k_sweep",
    "race",
    "recorded_race",
    "show",
    "tokens_html",
    "tokens_table",
]
