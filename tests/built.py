"""The wheel, built from a copy so that the checkout stays clean."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def build_wheel(work: Path) -> Path:
    """Build in `work`, an empty folder, with the setuptools that is installed. -> the .whl file"""
    copy, out = work / "copy", work / "out"
    out.mkdir()
    shutil.copytree(ROOT / "specdec_lite", copy / "specdec_lite", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    script = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", script], cwd=copy, check=True, capture_output=True)
    (wheel,) = out.glob("specdec_lite-*.whl")
    return wheel
