"""What a class needs beside the decoder: exercises that check themselves, and bugs as switchable parts."""

from . import checks as check

__all__ = ["check"]
