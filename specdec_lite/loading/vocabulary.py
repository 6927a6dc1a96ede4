"""Do two models speak of the same tokens? Compared by id, before a token of one is fed to the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHOWN = 3  # of the tokens that differ


def check_same_tokens(target: PreTrainedTokenizerBase, draft: PreTrainedTokenizerBase) -> None:
    """Refuse two tokenizers that mean different things by an id.

    Ids that only one of them has are fine. So is a special token under another name: families of
    models rename their reserved ones from version to version.

    Raises:
        ValueError: a token has two ids, or an id two tokens; names the first few.
    """
    ours, theirs = target.get_vocab(), draft.get_vocab()
    names = {i: token for token, i in theirs.items()}
    special = target.added_tokens_decoder.keys() & draft.added_tokens_decoder.keys()
    differ = []
    for token, i in sorted(ours.items(), key=lambda item: item[1]):
        if theirs.get(token, i) != i:
            differ.append(f"{token!r} is {i} in the target and {theirs[token]} in the draft")
        elif names.get(i, token) != token and i not in special:
            differ.append(f"{i} is {token!r} in the target and {names[i]!r} in the draft")
    if differ:
        raise ValueError(
            f"target and draft use different tokenizers, {len(differ)} tokens differ: {'; '.join(differ[:SHOWN])}"
            f"{'; ...' if len(differ) > SHOWN else ''}. Give two models that share one tokenizer"
        )


def check_widths(target: int, draft: int, tokenizer: PreTrainedTokenizerBase | None, agreed: bool) -> None:
    """Admit two widths of logits where the difference can only be padding.

    Models over one tokenizer round its size up differently (151,936 and 152,064). Without a
    tokenizer nothing tells that from two vocabularies.

    Args:
        target, draft: how many logits each gives.
        tokenizer: what both use, as far as is known.
        agreed: both brought a tokenizer, and the two agree.

    Raises:
        ValueError: the widths differ, and not by padding.
    """
    if target == draft or agreed:
        return
    ids = 1 + max(tokenizer.get_vocab().values()) if tokenizer else None
    if ids is None or min(target, draft) < ids:
        known = f"their tokenizer has {ids}" if ids else "pass tokenizer= if one serves both and the rest is padding"
        raise ValueError(
            f"the target's vocabulary has {target} entries and the draft's {draft}: "
            f"both must use one tokenizer ({known})"
        )
