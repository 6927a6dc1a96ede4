"""The project around the package: what is installed, what a wheel carries, what README.md and docs/*.md say."""

from __future__ import annotations

import ast
import hashlib
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from architectures import ARCHITECTURES
from built import ROOT, build_wheel
from lower_bounds import pins
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import specdec_lite as sd
from specdec_lite.arguments import build_parser
from specdec_lite.cli import RUN
from specdec_lite.pocket import DRAFT, TARGET

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))}
EXTRAS = PROJECT["optional-dependencies"]
CORE = [Requirement(each) for each in PROJECT["dependencies"]]
REQUIREMENTS = CORE + [Requirement(each) for extra in EXTRAS.values() for each in extra]
OPTIONAL = EXTRAS["browser"] + EXTRAS["real"]  # not installed by `make test`
MODULES = sorted((ROOT / "specdec_lite").rglob("*.py"))
PYTHONS = [f"3.{minor}.0" for minor in range(30)]


def blocks(language: str, *pages: str) -> list[str]:
    """The fenced blocks of one language on these pages."""
    return [block for page in pages for block in re.findall(rf"^```{language}\n(.*?)^```$", PAGES[page], re.M | re.S)]


def plain_commands() -> str:
    """What docs/installing.md lists for Linux and macOS."""
    (posix,) = [block for block in blocks("sh", "installing.md") if "-m venv" in block]
    return posix


# Dependencies


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda each: each.name)
def test_every_dependency_is_bounded_and_what_is_installed_fits(requirement: Requirement) -> None:
    operators = {each.operator for each in requirement.specifier}
    assert {">=", "<"} <= operators
    if requirement not in map(Requirement, OPTIONAL):
        assert version(requirement.name) in requirement.specifier


def test_the_promised_floors() -> None:
    floors = {each.name: bound.version for each in CORE for bound in each.specifier if bound.operator == ">="}
    assert (PROJECT["requires-python"], floors["torch"], floors["transformers"]) == (">=3.11", "2.11", "5.17")
    assert "needs Python 3.11, torch 2.11 and transformers 5.17, or newer" in PAGES["installing.md"]


def imports(path: Path) -> Iterator[str]:
    """Top names of the modules from elsewhere that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_import_is_declared(path: Path) -> None:
    """Pictures may use the extra `notebooks`; everything else runs without it."""
    declared = {each.name for each in CORE}
    if path.parent.name == "viz":
        declared |= {Requirement(each).name for each in EXTRAS["notebooks"]} | {"IPython"}  # comes with ipykernel
    assert set(imports(path)) - sys.stdlib_module_names - {"specdec_lite"} <= declared


def test_the_command_line_is_there_before_torch() -> None:
    module, function = PROJECT["scripts"]["specdec"].split(":")
    assert callable(getattr(importlib.import_module(module), function))


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return zipfile.ZipFile(build_wheel(tmp_path_factory.mktemp("wheel")))


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "specdec_lite").rglob("*") if path.is_file()}
    wanted = {name for name in files if "__pycache__" not in name}
    packed = {name for name in wheel.namelist() if not name.startswith("specdec_lite-")}
    assert packed == wanted


def test_the_wheel_tells_version_licence_and_command(wheel: zipfile.ZipFile) -> None:
    about = {name.split("/", 1)[1]: wheel.read(name).decode() for name in wheel.namelist() if ".dist-info/" in name}
    assert f"\nVersion: {sd.__version__}\n" in about["METADATA"]
    assert "\nLicense-Expression: Apache-2.0\n" in about["METADATA"]
    assert "specdec = specdec_lite.cli:main" in about["entry_points.txt"]
    assert "licenses/LICENSE" in about


def test_the_pocket_pair_ships_and_is_small() -> None:
    for folder in (TARGET, DRAFT):
        assert {"config.json", "model.safetensors"} <= {path.name for path in folder.iterdir()}
    assert sum(path.stat().st_size for path in TARGET.parent.rglob("*") if path.is_file()) <= 45e6


def test_the_licence_is_verbatim() -> None:
    """The text of Apache-2.0, whatever a checkout does to line ends."""
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


# environment.yml


@pytest.fixture
def environment() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def conda_specs(environment: dict) -> list[str]:
    return [each for each in environment["dependencies"] if isinstance(each, str)]


def test_the_conda_environment_leaves_the_rest_to_pyproject(environment: dict) -> None:
    assert environment["channels"] == ["conda-forge"]
    assert [spec.split()[0] for spec in conda_specs(environment)] == ["python", "pip"]
    (pip,) = [each["pip"] for each in environment["dependencies"] if isinstance(each, dict)]
    assert pip == ["-e .[notebooks,test]"]
    assert set(re.search(r"\[(.*)\]", pip[0])[1].split(",")) <= set(EXTRAS)


def test_the_conda_python_is_one_that_the_package_admits(environment: dict) -> None:
    """The same oldest Python; conda also gets an end, where wheels may be missing."""
    (spec,) = [spec.split()[1] for spec in conda_specs(environment) if spec.startswith("python ")]
    conda = [each for each in PYTHONS if each in SpecifierSet(spec)]
    admitted = [each for each in PYTHONS if each in SpecifierSet(PROJECT["requires-python"])]
    assert conda == admitted[: len(conda)]
    assert conda
    assert conda != admitted


def test_conda_would_understand_every_spec(environment: dict) -> None:
    rattler = pytest.importorskip("rattler", reason="py-rattler, conda's own parser, is not installed")
    for spec in conda_specs(environment):
        assert rattler.MatchSpec(spec, strict=True).name.normalized == spec.split()[0]


# The commands


def make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess:
    """Run make as from a new shell, although these tests may run under `make test PYTHON=...` themselves."""
    passed_on = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PYTHON", "VENV", "TORCH", "WORKERS")
    clean = {name: value for name, value in os.environ.items() if name not in passed_on}
    return subprocess.run(["make", *arguments], cwd=folder, env=clean, capture_output=True, text=True)


def made(target: str) -> list[str]:
    """The commands that `make target` would run on a new machine."""
    told = make("-n", target, "VENV=.none").stdout.replace(".none", ".venv")  # a folder that is not there yet
    return [line for line in told.splitlines() if not line.startswith(("touch", "python3 -c"))]


needs_make = pytest.mark.skipif(shutil.which("make") is None or os.name == "nt", reason="make is not installed")


@needs_make
def test_the_plain_commands_are_those_behind_make() -> None:
    told = [" ".join(shlex.split(line, comments=True)) for line in plain_commands().splitlines() if line]
    for target in ("lab", "demo", "bench", "test"):
        commands = made(target)
        assert commands[:2] == ["python3 -m venv .venv", ".venv/bin/python -m pip install torch==2.13.0"]
        for command in commands:
            assert " ".join(shlex.split(command)) in told
    assert len(told) == 12


def test_windows_gets_the_same_commands() -> None:
    (windows,) = blocks("powershell", "installing.md")
    told = (
        re.sub(r" +#.*", "", plain_commands())
        .replace("python3 -m venv", "py -3 -m venv")
        .replace(".venv/bin/", r".venv\Scripts\\")
    )
    assert windows == told.replace("\\\\", "\\")


FAKE = """#!/bin/sh
echo "$(basename "$0") $*" >> "{log}"
case "$*" in *"-m venv"*)
    mkdir -p .venv/bin
    for name in python jupyter specdec ruff mypy; do cp "$0" .venv/bin/$name; done;;
esac
"""


@needs_make
def test_a_second_call_installs_nothing(tmp_path: Path) -> None:
    """With a Python that only writes down what it is asked."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    log, fake = tmp_path / "log", tmp_path / "fake"
    fake.write_text(FAKE.format(log=log), encoding="utf-8")
    fake.chmod(0o755)

    def call(target: str) -> list[str]:
        log.write_text("")
        assert make(target, "PYTHON=./fake", folder=tmp_path).returncode == 0
        return [line for line in log.read_text().splitlines() if " -c " not in line]

    def installs(lines: list[str]) -> list[str]:
        return [line.split("install ")[1] for line in lines if "pip install" in line]

    assert installs(call("demo")) == ["torch==2.13.0", "-e .[notebooks]"]
    assert call("demo") == ["specdec demo"]
    assert call("lab") == ["jupyter lab --ServerApp.root_dir=. notebooks/00_start_here.ipynb"]
    assert installs(call("test")) == ["-e .[notebooks,test]"]
    assert installs(call("test") + call("lab") + call("demo")) == []
    later = (tmp_path / ".venv/test.stamp").stat().st_mtime + 5
    os.utime(tmp_path / "pyproject.toml", (later, later))  # a dependency was added
    assert installs(call("demo")) == ["-e .[notebooks]"]


@needs_make
def test_an_old_python_is_refused_with_what_to_do(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    old = tmp_path / "old"
    old.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; sys.version_info = (3, 10, 1); $2"\n')
    old.chmod(0o755)
    told = make("lab", "PYTHON=./old", folder=tmp_path)
    assert told.returncode != 0
    assert "./old is Python 3.10, but 3.11 or newer is needed: say for instance PYTHON=python3.12" in told.stderr
    assert not (tmp_path / ".venv").exists()


# Continuous integration


@pytest.fixture(scope="module")
def jobs() -> dict:
    """The jobs of the workflow; `runs` of each are its commands, one a line."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    for job in workflow["jobs"].values():
        job["runs"] = [line for step in job["steps"] for line in step.get("run", "").splitlines()]
    return workflow["jobs"]


def python_of(job: dict) -> str:
    (version,) = [step["with"]["python-version"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
    return version


def test_continuous_integration_runs_the_plain_commands(jobs: dict) -> None:
    assert jobs["make-test"]["runs"] == [".ci/run"]
    assert "\nexec make test" in (ROOT / ".ci/run").read_text(encoding="utf-8")
    for command in jobs["plain-commands"]["runs"]:
        plain = command.replace("${{ matrix.bin }}", ".venv/bin").replace("python -m venv", "python3 -m venv")
        assert plain.split(" --max-new-tokens")[0] in plain_commands()


def test_continuous_integration_installs_the_wheel_alone_with_all_it_asks_for(jobs: dict) -> None:
    build, empty, install, *use = jobs["wheel"]["runs"]
    assert build == "python -m pip wheel --no-deps --wheel-dir dist ."
    assert empty == 'python -m venv "$RUNNER_TEMP/empty"'
    assert install == '"$RUNNER_TEMP/empty/bin/python" -m pip install dist/*.whl'  # with its dependencies
    assert use[0] == 'cd "$RUNNER_TEMP"'  # away from the checkout
    assert use[1].startswith("empty/bin/specdec demo --max-new-tokens 16 --json")


def test_the_lower_bounds_have_a_job_with_the_oldest_python(jobs: dict) -> None:
    assert jobs["lower-bounds"]["runs"] == ["make test-lower-bounds"]
    assert f">={python_of(jobs['lower-bounds'])}" == PROJECT["requires-python"]


# Lower bounds


def test_every_lower_bound_is_pinned() -> None:
    """What `make test` installs, each at the least version that it admits, and that version is admitted."""
    installed = CORE + [Requirement(each) for extra in ("notebooks", "test") for each in EXTRAS[extra]]
    made = {each.name: each for each in map(Requirement, pins((ROOT / "pyproject.toml").read_text(encoding="utf-8")))}
    assert list(made) == [each.name for each in installed]
    for requirement in installed:
        (pin,) = made[requirement.name].specifier
        (floor,) = [each.version for each in requirement.specifier if each.operator == ">="]
        assert (pin.operator, pin.version) == ("==", floor)
        assert floor in requirement.specifier


@needs_make
def test_make_runs_the_unit_tests_with_the_lower_bounds() -> None:
    constrain, install, run = [line for line in made("test-lower-bounds") if " -m venv " not in line]
    assert constrain == ".venv-low/bin/python tests/lower_bounds.py > .venv-low/constraints.txt"
    assert install == '.venv-low/bin/python -m pip install -e ".[notebooks,test]" -c .venv-low/constraints.txt'
    assert run == made("test-units")[-1].replace(".venv/", ".venv-low/")


@pytest.mark.skipif(os.name == "nt", reason="files have no such bit here")
def test_continuous_integration_can_be_started() -> None:
    assert os.access(ROOT / ".ci/run", os.X_OK)


# README.md and docs/*.md


def tree() -> list[str]:
    """The paths in the README's file tree, in its order."""
    (text,) = blocks("text", "README.md")
    paths: list[str] = []
    folders: list[str] = []
    for line in text.splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()
        folders = [*folders[: len(indent) // 2], name]
        paths.append("".join(folders))
    return paths


def test_the_file_tree_is_the_real_one() -> None:
    """Every module and folder of the package's first level, and nothing that is not there."""
    package = ROOT / "specdec_lite"
    files = {path.relative_to(ROOT).as_posix() for path in package.glob("*.py") if path.name != "__init__.py"}
    folders = {f"{path.parent.relative_to(ROOT).as_posix()}/" for path in package.glob("*/__init__.py")}
    told = tree()
    assert {path for path in told if path.startswith("specdec_lite/")} - {"specdec_lite/"} == files | folders
    assert [path for path in told if not (ROOT / path).exists()] == []


def test_python_on_the_pages_uses_names_that_exist() -> None:
    examples = blocks("python", *PAGES)
    assert len(examples) >= 3
    for block in examples:
        used = {node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Attribute)}
        names = {node.attr for node in used if isinstance(node.value, ast.Name) and node.value.id == "sd"}
        assert names <= set(sd.__all__)
    assert set(re.findall(r"`sd\.(\w+)", "".join(PAGES.values()))) <= set(sd.__all__)


def specdec_commands() -> list[str]:
    """Every call of `specdec` on the pages, in a block or within a sentence."""
    lines = [line for block in blocks("sh", *PAGES) for line in block.splitlines()]
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", "".join(PAGES.values()), flags=re.M | re.S))
    return [each for each in lines + inline if re.match(r"(\.venv/bin/)?specdec ", each)]


@pytest.mark.parametrize("command", sorted(set(specdec_commands())))
def test_a_command_on_the_pages_parses(command: str) -> None:
    _, *arguments = shlex.split(command, comments=True)
    assert build_parser().parse_args(arguments).command in RUN


def test_each_command_is_on_the_pages() -> None:
    commands = re.findall(r"^    ([a-z]+) ", build_parser().format_help(), re.M)
    assert len(commands) >= 5
    assert {shlex.split(each)[1] for each in specdec_commands()} >= set(commands)


def test_the_pages_count_architectures_right() -> None:
    from test_graphs import DENSE

    assert f" {len(ARCHITECTURES)} architectures" in PAGES["testing.md"]
    assert f" {len(DENSE)} architectures" in PAGES["models.md"]


def test_the_first_example_runs() -> None:
    names: dict = {}
    exec(compile(blocks("python", "README.md")[0], "README.md", "exec"), names)
    for made in (names["naive"], names["fast"]):
        assert 1 <= len(made.tokens) <= 64
        assert isinstance(made.text, str)
    assert len(names["fast"].trace.rounds) < len(names["naive"].trace.rounds)
