"""One line that says which machine produced a number."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import torch


def processor() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def environment() -> str:
    """Processor or GPU, threads and versions, on one line."""
    threads = torch.get_num_threads()
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{processor()}, {threads} thread{'s' * (threads > 1)}, {where}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, transformers {version('transformers')}"
    )
