"""What a user passed, as an error message shows it."""

from __future__ import annotations

from torch import nn


def shown(value: object, width: int = 80) -> str:
    """Its repr on one line of at most `width` characters; of a module, which has hundreds, the class."""
    if isinstance(value, nn.Module):
        return f"a {type(value).__name__}"
    text = " ".join(repr(value).split())
    return text if len(text) <= width else text[: width - 3] + "..."
