"""Count how long each notebook takes, and write that into its card and into notebooks/README.md.

    python docs/reading_times.py

Nothing is timed: words and code cells are divided by the rates below. Exercises take what their headings
say. Left out are alt texts, references, an appendix, and the stubs of exercises. A test fails where a page
says something else.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

WORDS_A_MINUTE = 200  # of prose, what is folded included
SECONDS_A_CELL = 30  # of code, its output looked at: half a minute
STEP = 5  # minutes to which a time is rounded

FOLDER = Path(__file__).parents[1] / "notebooks"
MAP = FOLDER / "README.md"
CARD = re.compile(r"^\| \*\*Time\*\* \|.*\|$", re.M)
TOTAL = re.compile(r"\d+ to read, \d+ for all exercises")


def minutes(notebook: nbformat.NotebookNode) -> tuple[int, int]:
    """Minutes to read and run a notebook, and minutes for its exercises."""
    words = cells = exercises = 0
    for cell in notebook.cells:
        text = cell.source
        if cell.cell_type == "code":
            cells += "# your code here" not in text
            continue
        exercises += sum(map(int, re.findall(r"^### .*\(\w+, (\d+) minutes\)$", text, re.M)))
        body = re.split(r"^## (?:References|Appendix)", text, flags=re.M)[0]
        words += len(re.findall(r"\S*\w\S*", re.sub(r"!\[[^\]]*\]\([^)]*\)", "", body)))
        if body != text:
            break
    return STEP * round((words / WORDS_A_MINUTE + cells * SECONDS_A_CELL / 60) / STEP), exercises


def row(reading: int, exercises: int) -> str:
    """Both times as the map tells them."""
    return f"{reading} to read" + f", {exercises} for the exercises" * (exercises > 0)


def card_row(reading: int, exercises: int) -> str:
    """Both times as a notebook's card tells them."""
    rates = f"{WORDS_A_MINUTE} words a minute, half a minute a cell"
    more = f", {exercises} more for the exercises" * (exercises > 0)
    return f"| **Time** | {reading} minutes to read ({rates}){more} |"


def pages() -> dict[Path, str]:
    """Every page that says a time -> what it must hold."""
    made, summary, sums = {}, MAP.read_text(encoding="utf-8"), [0, 0]
    for path in sorted(FOLDER.glob("[0-9]*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        times = minutes(notebook)
        sums = [one + other for one, other in zip(sums, times, strict=True)]
        card = next(cell for cell in notebook.cells if CARD.search(cell.source))
        card.source = CARD.sub(card_row(*times), card.source)
        made[path] = nbformat.writes(notebook) + "\n"
        line = rf"^(\| \[{path.stem}\]\(.*?\) \| .*? \| )[^|]*"
        summary = re.sub(line, lambda found, times=times: f"{found[1]}{row(*times)} ", summary, flags=re.M)
    made[MAP] = TOTAL.sub(f"{sums[0]} to read, {sums[1]} for all exercises", summary)
    return made


if __name__ == "__main__":
    for path, text in pages().items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"{path.name} was rewritten")
