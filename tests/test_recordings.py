"""Runs that are kept in the package: read as they were written, listed by what they say, and none invented."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from specdec_lite.bench.recordings import FOLDER, recorded_on_gpus, recorded_runs


def planted(folder: Path, name: str, date: str, gpu: str | None, **more: object) -> None:
    """A file as `specdec targets` writes it, of a machine that does not exist."""
    hardware = {"processor": "Abacus", "processors": 2, "gpu": gpu, "driver": "1.2", "cuda": "3.4"}
    goal = {"part": "wide", "name": "naive_share"}
    data = {
        "what": "specdec targets", "date": f"{date}T12:00:00+00:00", "hardware": hardware,
        "versions": {"torch": "9.9", "transformers": "8.8"},
        "goals": [goal | {"met": met} for met in (True, True, False, None)],
        "parts": {"wide": {"figures": {"naive_share": {"median": 0.9, "low": 0.8, "high": 1.0}}}, "bench": None},
    }  # fmt: skip
    (folder / name).write_text(json.dumps(data | more), encoding="utf-8")


def test_a_run_is_listed_with_hardware_versions_and_date(tmp_path: Path) -> None:
    planted(tmp_path, "b.json", "2026-01-02", "Imaginary 9000")
    planted(tmp_path, "a.json", "2027-03-04", None)
    first, second = recorded_runs(tmp_path)
    assert (first.file, first.gpu, first.date, second.gpu) == ("b.json", "Imaginary 9000", "2026-01-02", None)
    assert first.figure("wide", "naive_share")["median"] == 0.9
    assert first.figure("bench", "over_naive_greedy") is first.figure("doctor", "error") is None
    assert recorded_on_gpus(tmp_path) == (
        "Recorded on a GPU:\n  Imaginary 9000 (driver 1.2, CUDA 3.4); torch 9.9, transformers 8.8, 2026-01-02: "
        "2 met, 1 not met, 1 not measured (b.json)"
    )
    assert "Abacus, 2 processors, no GPU" in str(second)


def test_where_there_is_none_that_is_what_is_said(tmp_path: Path) -> None:
    assert recorded_runs(tmp_path) == []
    planted(tmp_path, "cpu.json", "2026-01-02", None)
    assert recorded_on_gpus(tmp_path).startswith("No run on a GPU is recorded. `specdec targets --device cuda")


def test_another_file_is_refused(tmp_path: Path) -> None:
    planted(tmp_path, "a.json", "2026-01-02", None, what="specdec bench")
    with pytest.raises(ValueError, match="a.json among the recorded runs was not written by specdec targets --json"):
        recorded_runs(tmp_path)
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match="a.json among the recorded runs is no JSON"):
        recorded_runs(tmp_path)


def test_what_the_package_keeps_can_be_read() -> None:
    assert FOLDER.is_dir()
    for each in recorded_runs():
        assert each.data["complete"]
        assert str(each)
