"""Remake the pictures of notebook 07, how it goes wrong.

    python docs/make_museum_pictures.py [museum_map museum_explorer]

Needs the extras `notebooks` and `browser`, and a Chromium.
"""

from __future__ import annotations

import sys
from functools import cache

import make_proof_pictures

from specdec_lite.teaching.museum import MUSEUM, alarms
from specdec_lite.viz import MuseumExplorer, museum_map


@cache
def readings() -> tuple[alarms.Reading, ...]:
    return tuple(map(alarms.read, MUSEUM))


def explorer() -> object:
    """The widget's picture with an exhibit whose effect is plain to see."""
    made = MuseumExplorer(readings(), alarms.wanted())
    made.move(exhibit="penalty remembers rejected tokens")
    return made.figure()


make_proof_pictures.PICTURES = {
    "museum_map": lambda: museum_map(readings()),
    "museum_explorer": explorer,
}

if __name__ == "__main__":
    make_proof_pictures.main(sys.argv[1:])
