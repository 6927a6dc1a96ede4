"""A wheel built here, in an environment without the checkout, decodes with the pocket pair."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from built import ROOT, build_wheel

BIN = "Scripts" if os.name == "nt" else "bin"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
ENVIRONMENT |= {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PIP_NO_INDEX": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}


def told(*command: str | Path, folder: Path) -> str:
    """Run a command away from the checkout. -> what it prints"""
    done = subprocess.run([*map(str, command)], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment into which the wheel alone was installed.

    torch and the like are not downloaded for it: it sees those of the Python that runs the tests, by
    a .pth file. Python reads no second .pth file behind one, so an editable install stays out of sight.
    """
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=os.name != "nt")  # as python -m venv
    wheel = build_wheel(tmp_path_factory.mktemp("build"))
    python = home / BIN / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
    told(*pip, wheel, folder=home)
    alone = subprocess.run(
        [python, "-c", "import specdec_lite.decoding"], cwd=home, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert "No module named 'torch'" in alone.stderr  # it was empty
    site = Path(told(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=home).strip())
    shared = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "dependencies.pth").write_text("\n".join(shared), encoding="utf-8")
    return home


@pytest.mark.slow
def test_the_command_of_the_wheel_decodes(home: Path, tmp_path: Path) -> None:
    demo = [home / BIN / "specdec", "demo", "--max-new-tokens", "16", "--repeats", "1", "--json"]
    data = json.loads(told(*demo, folder=tmp_path))
    assert data["identical"] is True
    assert len(data["naive"]["tokens"]) == 16


@pytest.mark.slow
def test_the_package_of_the_wheel_decodes_and_is_not_the_checkout(home: Path, tmp_path: Path) -> None:
    script = (
        "import specdec_lite as sd; pair = sd.load_pair(); "
        "made = sd.speculative(pair.target, sd.ModelDrafter(pair.draft), 'def add(a, b):', max_new_tokens=8); "
        "print(sd.__file__, len(made.tokens), type(made.text).__name__, sep='\\n')"
    )
    file, tokens, kind = told(home / BIN / "python", "-c", script, folder=tmp_path).splitlines()
    assert Path(file).is_relative_to(home)
    assert not Path(file).is_relative_to(ROOT)
    assert (tokens, kind) == ("8", "str")
