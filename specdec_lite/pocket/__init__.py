"""The pocket pair: a target and a draft small enough to ship, and the recipe that made them."""

from pathlib import Path

TARGET = Path(__file__).parent / "target"
DRAFT = Path(__file__).parent / "draft"
