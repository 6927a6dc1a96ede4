"""Who proposes tokens. `specdec_lite.draft` says what the loop asks of a drafter."""

from __future__ import annotations

from ..draft import Drafter
from ..models import LanguageModel
from .model import ModelDrafter
from .prompt_lookup import PromptLookupDrafter

DRAFTERS = ("model", "lookup")  # as `--drafter` names them


def drafter_named(name: str, draft: LanguageModel | None) -> Drafter:
    """The drafter of that name; a model drafts with `draft`."""
    return PromptLookupDrafter() if name == "lookup" else ModelDrafter(draft)
