"""Which part of the package may import which: a line reads downwards, and importing loads little."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import specdec_lite as sd

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "specdec_lite"
# Folders and top-level modules; each imports only what stands before it.
ORDER = (
    *("messages", "trace", "acceptance", "transfer", "tree", "randomness", "stopping", "kv_cache"),
    *("engines", "models", "sampling", "draft", "prompts", "loop", "decoding"),
    *("theory", "drafters", "pocket", "smollm2", "loading", "bench", "training", "teaching", "viz", "arguments", "cli"),
)


def part(path: Path, package: Path = PACKAGE) -> str:
    return path.relative_to(package).parts[0].removesuffix(".py")


def imported(path: Path, package: Path = PACKAGE) -> Iterator[str]:
    """Parts of the package that a file imports, anywhere in it; "" for the package's own public names."""
    here = path.relative_to(package).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ["specdec_lite", *here][: len(here) + 2 - node.level] if node.level else []
            stem = [*base, *(node.module or "").split(".")] if node.module else base
            names = [[*stem, alias.name] for alias in node.names]
        else:
            continue
        for _, *rest in (name for name in names if name[0] == "specdec_lite"):
            known = rest and ((package / rest[0]).is_dir() or (package / f"{rest[0]}.py").is_file())
            if rest != ["__version__"]:
                yield rest[0] if known else ""


def upward(path: Path, package: Path = PACKAGE) -> list[str]:
    own = part(path, package)
    return [each for each in imported(path, package) if each not in (own, *ORDER[: ORDER.index(own)])]


MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def test_every_part_has_its_place() -> None:
    assert {part(path) for path in MODULES} == set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_down(path: Path) -> None:
    assert upward(path) == []


def modules_after(script: str) -> set[str]:
    script += "; import sys; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return set(told.split())


SLOW = {"transformers", "tokenizers", "pandas", "plotly", "ipywidgets", "IPython", "matplotlib"}


def test_importing_the_package_loads_nothing_else() -> None:
    loaded = modules_after("import specdec_lite")
    assert {each for each in loaded if each.startswith("specdec_lite")} == {"specdec_lite"}
    assert not loaded & {"torch", "numpy", *SLOW}


def test_a_public_name_loads_torch_and_no_slower_library() -> None:
    loaded = modules_after("from specdec_lite import *")
    assert "torch" in loaded
    assert not loaded & SLOW


def test_the_command_line_answers_without_torch() -> None:
    loaded = modules_after("import specdec_lite.cli; specdec_lite.cli.build_parser()")
    assert not loaded & {"torch", "numpy", *SLOW}


def test_the_terminal_loads_no_picture() -> None:
    loaded = modules_after("import specdec_lite.bench.demo, specdec_lite.bench.doctor, specdec_lite.bench.roofline")
    assert not {each for each in loaded if each.startswith("specdec_lite.viz")}


def test_public_names_for_type_checkers_are_those_that_load() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    static = {alias.name: node.module for node in block.body for alias in node.names}
    assert static == sd.PUBLIC
    assert set(sd.__all__) <= set(dir(sd))
    for name in sd.__all__:
        assert getattr(sd, name).__module__ == f"specdec_lite.{static[name]}"


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'specdec_lite' has no attribute 'speculate'"):
        sd.speculate  # noqa: B018


@pytest.mark.parametrize("line", ["from ..viz import theme", "from ..viz.theme import KINDS", "from .. import viz",
    "import specdec_lite.viz.theme", "from specdec_lite import load_pair", "from .. import load_pair"])  # fmt: skip
@pytest.mark.parametrize("lazily", [False, True])
def test_an_upward_import_is_seen(line: str, lazily: bool, tmp_path: Path) -> None:
    for folder in ("bench", "viz"):
        (tmp_path / folder).mkdir()
    path = tmp_path / "bench" / "planted.py"
    path.write_text(f"def f() -> None:\n    {line}\n" if lazily else f"{line}\n", encoding="utf-8")
    assert upward(path, tmp_path) in (["viz"], [""])
