"""The docstring of every public name holds an example, and every example runs."""

from __future__ import annotations

import doctest

import pytest
import torch

import specdec_lite as sd


@pytest.mark.parametrize("name", sd.__all__)
def test_the_example_of_a_public_name_runs(name: str) -> None:
    finder = doctest.DocTestFinder(recurse=False)
    (found,) = finder.find(getattr(sd, name), name, globs={"sd": sd, "torch": torch})
    assert found.examples, f"{name} has no example in its docstring"
    failures: list[str] = []
    doctest.DocTestRunner(verbose=False).run(found, out=failures.append)
    assert not failures, "".join(failures)
