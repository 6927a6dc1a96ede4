"""Rounds as text, with numbered lines: one is right, in each of the others one line is wrong."""

from __future__ import annotations

from collections.abc import Mapping

RIGHT = """\
def round(p_target, p_draft, drafted, uniforms, last):
    kept = []
    for i, token in enumerate(drafted):
        chance = min(1, p_target[i][token] / p_draft[i][token])
        if uniforms[i] < chance:
            kept.append(token)
        else:
            left = [max(0, t - d) for t, d in zip(p_target[i], p_draft[i])]
            return kept + [pick([each / sum(left) for each in left], last)]
    return kept + [pick(p_target[len(drafted)], last)]
"""

# Version -> the line that is wrong (0 for none) and what stands there.
VERSIONS: Mapping[str, tuple[int, str]] = {
    "A": (9, "            return kept + [pick(p_target[i], last)]"),
    "B": (5, "        if uniforms[0] < chance:"),
    "C": (10, "    return kept + [p_target[-1].index(max(p_target[-1]))]"),
    "D": (0, ""),
    "E": (8, "            left = [max(0, d - t) for t, d in zip(p_target[i], p_draft[i])]"),
    "F": (4, "        chance = min(1, p_target[i + 1][token] / p_draft[i][token])"),
}


def source(version: str) -> str:
    """The Python of one version. It calls `pick(probs, uniform)`.

    Raises:
        ValueError: there is no such version.
    """
    if version not in VERSIONS:
        raise ValueError(f"version must be one of {list(VERSIONS)}, got {version!r}")
    number, line = VERSIONS[version]
    lines = RIGHT.splitlines()
    if number:
        lines[number - 1] = line
    return "\n".join(lines) + "\n"


def listing(version: str) -> str:
    """The same with line numbers."""
    return "\n".join(f"{number:2}  {line}" for number, line in enumerate(source(version).splitlines(), start=1))
