"""Who proposes tokens. `specdec_lite.draft` says what the loop asks of a drafter."""

from __future__ import annotations

from ..draft import Drafter
from ..models import LanguageModel
from .eagle import EagleDrafter
from .eagle_head import EagleHead
from .early_exit import EarlyExitDrafter
from .model import ModelDrafter
from .prompt_lookup import PromptLookupDrafter

DRAFTERS = ("model", "head", "lookup", "exit")  # as `--drafter` names them


def drafter_named(name: str, draft: LanguageModel | None, head: EagleHead | None = None) -> Drafter:
    """The drafter of that name; a model drafts with `draft`, and an early exit with half of the target's layers.

    Raises:
        ValueError: the model or the head that it needs was not loaded.
    """
    if name == "head":
        if head is None:
            raise ValueError("there is no head for this target: draft by 'lookup' or 'exit', or load a draft model")
        return EagleDrafter(head)
    if name == "exit":
        return EarlyExitDrafter()
    if name == "lookup":
        return PromptLookupDrafter()
    if draft is None:
        raise ValueError("there is no draft model: load one, or draft by 'lookup' or 'exit'")
    return ModelDrafter(draft)
