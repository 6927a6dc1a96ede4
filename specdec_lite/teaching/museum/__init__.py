"""Bugs of speculative decoding, each a switch, and the test that catches each.

Three classes, kept apart. *Biased*: the text no longer follows the target. *Exact but slow*: it does,
since `p_draft` is still what was sampled, but fewer drafts survive. *Exact*: nothing wrong. A bug
hides from the tests meant for another class, so every exhibit names the one that sees it:

- "enumeration": `theory.exact`, every path of the real loop against the target alone;
- "twin": a draft identical to the target must have every token accepted that the rule promises to keep;
- "dice": frequencies of whole short texts, drawn with its own dice, against the target, by chi-square.

`MUSEUM` is the collection, `alarms` are the tests, `mystery(n)` is a decoder without a label. `STORIES` are the
threads in which people met such a bug, and `story_table()` lists them.
"""

from . import alarms
from .drafting import DraftWith, FavouriteSession, FilteredDraws, ForgetfulSession, UnfilteredSession
from .exhibits import MUSEUM, STORIES, Story, listing, story_table
from .mystery import Mystery, mystery
from .rules import FirstFailureEnds, RedrawAfterMismatch, ResampleFromTarget, TriedInTurn
from .setup import Exhibit, GreedyBonus, Setup, SlackCache, SlackRewind
from .surroundings import LastTokenStop, Ledger, OneUniform, frequency_penalty

__all__ = [
    "MUSEUM",
    "STORIES",
    "DraftWith",
    "Exhibit",
    "FavouriteSession",
    "FilteredDraws",
    "FirstFailureEnds",
    "ForgetfulSession",
    "GreedyBonus",
    "LastTokenStop",
    "Ledger",
    "Mystery",
    "OneUniform",
    "RedrawAfterMismatch",
    "ResampleFromTarget",
    "Setup",
    "SlackCache",
    "SlackRewind",
    "Story",
    "TriedInTurn",
    "UnfilteredSession",
    "alarms",
    "frequency_penalty",
    "listing",
    "mystery",
    "story_table",
]
