"""Print a pin for every dependency's lower bound, for `make test-lower-bounds`. Needs nothing installed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
TESTED = ("notebooks", "test")  # extras that `make test` installs


def pins(pyproject: str) -> list[str]:
    """The text of a pyproject.toml -> "name==floor" for its dependencies and those of the tested extras."""
    project = tomllib.loads(pyproject)["project"]
    wanted = project["dependencies"] + [each for extra in TESTED for each in project["optional-dependencies"][extra]]
    return [re.sub(r"^([\w.-]+).*>=([^,;\s]+).*", r"\1==\2", each) for each in wanted]


if __name__ == "__main__":
    print(*pins(PYPROJECT.read_text(encoding="utf-8")), sep="\n")
