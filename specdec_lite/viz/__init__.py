"""Pictures of a run: pure figure functions, and thin controls over them. plotly loads when a figure is made."""

from .cache_stepper import CacheStepper
from .cache_steps import cache_steps, snapshots
from .figures import k_sentence, k_sweep, recorded_race, show
from .overlap import overlap_picture
from .residual import ResidualExplorer
from .theme import KINDS
from .timeline import race
from .tokens import counts, tokens_html, tokens_table
from .widgets import KExplorer

__all__ = [
    "KINDS",
    "CacheStepper",
    "KExplorer",
    "ResidualExplorer",
    "cache_steps",
    "counts",
    "k_sentence",
    "k_sweep",
    "overlap_picture",
    "race",
    "recorded_race",
    "show",
    "snapshots",
    "tokens_html",
    "tokens_table",
]
