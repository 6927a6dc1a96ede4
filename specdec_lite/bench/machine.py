"""Which machine produced a number: in one line, and in parts for a file that is kept."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
    """Processor or GPU, threads and versions, on one line.

    Example:
        >>> "torch" in sd.environment()
        True
    """
    threads = torch.get_num_threads()
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{processor()}, {threads} thread{'s' * (threads > 1)}, {where}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, transformers {version('transformers')}"
    )


def hardware(device: torch.device) -> dict[str, Any]:
    """What models on this device run on; of a GPU also its memory in bytes, its driver, and the CUDA of this torch."""
    hardware_facts: dict[str, Any] = {
        "device": str(device), "processor": processor(), "processors": os.cpu_count(), "system": platform.system(),
        "gpu": None,
    }  # fmt: skip
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        capability = f"{found.major}.{found.minor}"
        hardware_facts |= {"gpu": found.name, "gpu_memory_bytes": found.total_memory, "compute_capability": capability}
        hardware_facts |= {"driver": driver(), "cuda": torch.version.cuda}
    return hardware_facts


def versions() -> dict[str, str]:
    """Of everything that a time depends on."""
    from .. import __version__

    return {
        "python": platform.python_version(), "torch": torch.__version__, "transformers": version("transformers"),
        "specdec_lite": __version__,
    }  # fmt: skip


def driver() -> str | None:
    """The version of NVIDIA's driver; None where its tool does not say."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return printed[0] if printed else None
