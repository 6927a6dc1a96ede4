"""Pictures of a run: pure figure functions, and thin controls over them. plotly loads when a figure is made."""

from .acceptance import metrics_by_k, verdicts_by_position
from .acceptance_explorer import AcceptanceExplorer
from .budget import budget_figure, shares
from .cache_stepper import CacheStepper
from .cache_steps import cache_steps, snapshots
from .chat_box import ChatBox
from .curves import curves, overlap_curve, watch
from .figures import k_sentence, k_sweep, recorded_race, show
from .k_explorer import KExplorer
from .museum import effect, museum_map, museum_sentence, spelled
from .museum_explorer import MuseumExplorer
from .next_token import next_token
from .next_token_explorer import NextTokenExplorer
from .overlap import overlap_picture
from .pass_times import cache_growth, pass_table, pass_times, step_growth, two_needs
from .residual import ResidualExplorer
from .roofline import roofline_figure
from .roofline_explorer import RooflineExplorer
from .speedup_map import SpeedupMap
from .theme import KINDS
from .timeline import race
from .tokens import chances_html, counts, tokens_html, tokens_table

__all__ = [
    "KINDS",
    "AcceptanceExplorer",
    "ChatBox",
    "CacheStepper",
    "KExplorer",
    "MuseumExplorer",
    "NextTokenExplorer",
    "ResidualExplorer",
    "RooflineExplorer",
    "SpeedupMap",
    "budget_figure",
    "cache_growth",
    "cache_steps",
    "chances_html",
    "counts",
    "curves",
    "effect",
    "k_sentence",
    "k_sweep",
    "metrics_by_k",
    "museum_map",
    "museum_sentence",
    "next_token",
    "overlap_curve",
    "overlap_picture",
    "pass_table",
    "pass_times",
    "race",
    "recorded_race",
    "roofline_figure",
    "shares",
    "show",
    "snapshots",
    "spelled",
    "tokens_html",
    "tokens_table",
    "step_growth",
    "two_needs",
    "watch",
    "verdicts_by_position",
]
