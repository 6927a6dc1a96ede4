"""`specdec roofline`: what this machine gives, and what a model's passes make of it.

A pass over K + 1 rows should cost hardly more than one over a single row: speculation lives on that.
Whether it does, and whether memory, arithmetic or dispatch decides, is measured here.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch

from ..loading.checkpoints import DTYPES
from .bandwidth import last_level_cache, streams, throughput
from .bottleneck import FEW, elsewhere, parting, regime, wanted, wanted_lines
from .compare import progress_on
from .console import Ink, percent, table
from .machine import environment
from .models_under_test import Subject, subjects
from .passes import Passes, check_room, time_passes
from .timing import idle, interleave

MOVING = {"read": "reading", "copy": "copying"}


@dataclass(frozen=True)
class RooflineSettings:
    """What the command line says."""

    target: str | None = None  # None for the pocket target and a wide random one
    rows: Sequence[int] = (1, 2, 4, 8, 16, 32, 64)
    context: int = 128
    threads: int | None = None
    device: str = "cpu"
    dtype: str | None = None
    bits: int | None = None
    repeats: int = 11


@dataclass(frozen=True)
class Gives:
    """What the machine gives with so many threads: bytes a second, and operations a second by precision."""

    read: float
    copy: float
    products: dict[str, float]


def run(settings: RooflineSettings, json_file: str | None = None) -> list[Subject]:
    """The whole measurement: tables on standard output, progress on standard error."""
    ink, progress = Ink(sys.stdout), Ink(sys.stderr)
    models = subjects(settings.target, settings.device, settings.dtype, settings.threads, settings.bits)
    rows = {1, FEW, *settings.rows}
    for each in models:
        check_room(each.module, rows, settings.context)
    ink.line(ink("The roofline of this machine", "title"))
    ink.paragraph("", environment(), "note")
    ink.line()
    before, machine = torch.get_num_threads(), {}
    try:
        for threads in dict.fromkeys(each.threads for each in models):
            torch.set_num_threads(threads)
            progress.passing(f"  Measuring memory and matrix products with {threads} threads ...")
            machine[threads] = what_it_gives(models[0].module.device)
        progress.passing("")
        show_machine(ink, machine)
        for each in models:
            torch.set_num_threads(each.threads)
            each.passes = time_passes(each.module, rows, settings.context, settings.repeats, progress_on(progress))
            show(ink, each)
    finally:
        torch.set_num_threads(before)
    show_elsewhere(ink, models[-1], settings.context)
    if json_file:
        with open(json_file, "w", encoding="utf-8") as file:
            json.dump(roofline_report(settings, machine, models), file, indent=1)
    return models


def what_it_gives(device: torch.device) -> Gives:
    """Bandwidth and throughput with the threads that are set now."""
    moved = interleave(streams(device), rounds=7, warm_up=1, wait=idle(device))
    return Gives(*(median(moved.rates(name)) for name in ("read", "copy")), throughput(device, DTYPES))


def show_machine(ink: Ink, machine: dict[int, Gives]) -> None:
    """Memory and arithmetic, a column for each number of threads."""
    names = list(dict.fromkeys(name for each in machine.values() for name in each.products))
    rows = [["", *(f"{threads} thread{'s' * (threads > 1)}" for threads in machine)]]
    rows.append(["memory, reading, GB/s", *(f"{each.read / 1e9:.1f}" for each in machine.values())])
    rows.append(["memory, copying, GB/s", *(f"{each.copy / 1e9:.1f}" for each in machine.values())])
    for name in names:
        rates = [each.products.get(name) for each in machine.values()]
        cells = ["none" if rate is None else f"{rate / 1e9:,.0f}" for rate in rates]
        rows.append([f"products in {name}, GFLOP/s", *cells])
    lines = table(rows)
    ink.line(ink(lines[0], "title"))
    for line in lines[1:]:
        ink.line(line)
    ink.line()


def show(ink: Ink, subject: Subject) -> None:
    """One model: its table, its regime, and what was wanted of it."""
    best = subject.best
    shape, threads = best.shape, f"{subject.threads} thread{'s' * (subject.threads > 1)}"
    facts = f"{shape.parameters / 1e6:.1f} M weights, {subject.module.dtype}, {threads}, {best.context} cached tokens"
    ink.line(ink(subject.name, "title") + f": {facts.replace('torch.', '')}")
    ink.line()
    for each in subject.passes.values():
        head = [f"{each.engine} engine", "ms", "predicted", "ratio", "in 1-row forwards", "GB/s"]
        rows = [[*head, f"of {MOVING[each.against]}"]]
        for n in each.rows:
            took, foreseen = each.seconds(n).median, each.predicted(n)
            row = [f"{n} row{'s' * (n > 1)}", f"{1000 * took:.2f}", f"{1000 * foreseen:.2f}", f"{took / foreseen:.2f}"]
            rows.append([*row, f"{each.ratio(n).median:.2f}", f"{each.achieved(n) / 1e9:.1f}", share(each, n)])
        for n, line in zip([0, *each.rows], table(rows), strict=True):
            ink.line(ink(line, "title") if n in (0, 1, FEW) else line)
        ink.line()
    ink.paragraph("The regime.", regime(subject))
    ink.paragraph("Where they part.", parting(best))
    for line in wanted_lines(subject):
        ink.paragraph("Wanted.", line)
    ink.line()


def share(passes: Passes, rows: int) -> str:
    return percent(passes.share(rows).median)


def show_elsewhere(ink: Ink, subject: Subject, context: int) -> None:
    """The same model under the data sheets of other machines."""
    rows = [[f"{subject.name}, by data sheet", "precision", "1 row, ms", f"{FEW} rows / 1", "arithmetic from"]]
    for each in elsewhere(subject.best.shape, context):
        limit = each["arithmetic_from_rows"]
        cells = [
            f"{1000 * each['one_row_seconds']:.3f}",
            f"{each['five_rows']:.2f}",
            f"{limit} rows" if limit else "never",
        ]
        rows.append([each["device"], each["precision"], *cells])
    lines = table(rows)
    ink.line(ink(lines[0], "title"))
    for line in lines[1:]:
        ink.line(line)
    ink.paragraph("", "Ceilings, without dispatch: a model this small would wait for that on each of them.", "note")
    ink.line()


def roofline_report(settings: RooflineSettings, machine: dict[int, Gives], models: list[Subject]) -> dict[str, Any]:
    """What `--json` writes."""
    return {
        "machine": environment(),
        "processors": os.cpu_count(),
        "last_level_cache_bytes": last_level_cache(models[0].module.device),
        "settings": asdict(settings),
        "gives": {str(threads): asdict(each) for threads, each in machine.items()},
        "models": [entry(each) for each in models],
        "by_data_sheet": elsewhere(models[-1].best.shape, settings.context),
    }


def entry(subject: Subject) -> dict[str, Any]:
    """One model's numbers. `seconds` are raw, by rows and then by round."""
    engines = {}
    for name, each in subject.passes.items():
        rows = each.rows
        engines[name] = {
            "shape": asdict(each.shape),
            "ceiling": asdict(each.ceiling),
            "seconds": {str(n): each.each(n) for n in rows},
            "predicted_seconds": {str(n): each.predicted(n) for n in rows},
            "work": {str(n): asdict(each.shape.work(n, each.context)) for n in rows},
            "in_one_row_passes": {str(n): asdict(each.ratio(n)) for n in rows},
            "achieved_bytes_per_second": {str(n): each.achieved(n) for n in rows},
            "share_of": MOVING[each.against],
            "share_of_bandwidth": {str(n): asdict(each.share(n)) for n in rows},
        }
    return {
        "name": subject.name, "threads": subject.threads, "dtype": str(subject.module.dtype).removeprefix("torch."),
        "engines": engines, "best_engine": subject.best.engine, "regime": regime(subject),
        "parting": parting(subject.best), "targets": wanted(subject),
    }  # fmt: skip
