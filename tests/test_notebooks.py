"""Every page is whole: notebooks are committed executed and can be read without a kernel, links and pictures hold.

`pytest --nbval` compares what a notebook computes. It passes a notebook that was stripped or whose
cells are all ignored, so the rules here refuse those, and each rule is shown a notebook that breaks it.
"""

from __future__ import annotations

import ast
import copy
import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(p for p in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
PAGES = sorted(ROOT.glob("*.md")) + [
    path for folder in ("docs", "notebooks", "specdec_lite") for path in sorted((ROOT / folder).rglob("*.md"))
]

LARGEST = 400_000  # bytes
LONGEST_CELL = 15  # lines
IGNORE = "NBVAL_IGNORE_OUTPUT"
OTHER_MARKERS = ("NBVAL_SKIP", "NBVAL_RAISES_EXCEPTION", "PYTEST_VALIDATE_IGNORE_OUTPUT")
MACHINE_PATH = re.compile(
    r"(?<![\w.])/(?:home|Users|root|work|tmp|private|var/folders|mnt)/[\w.-]+|[A-Za-z]:\\+(?:Users|Temp|Program|Windows)"
    r"|site-packages|ipykernel_\d+"
)
FENCED = r"^ {0,3}(`{3,}|~{3,}).*?^ {0,3}\1[`~]*[ \t]*$"  # a block of code


@dataclass
class Page:
    """A notebook, or a Markdown file as a notebook of one cell."""

    path: Path
    notebook: NotebookNode
    root: Path  # links may lead to files under this folder

    @property
    def code(self) -> list[NotebookNode]:
        return [cell for cell in self.notebook.cells if cell.cell_type == "code" and cell.source.strip()]

    @property
    def outputs(self) -> list[NotebookNode]:
        return [output for cell in self.code for output in cell.outputs]

    @property
    def prose(self) -> str:
        """Markdown without code and formulas, in which brackets and hashes mean something else."""
        text = "\n\n".join(cell.source for cell in self.notebook.cells if cell.cell_type == "markdown")
        for code in (
            FENCED,
            r"<!--.*?-->",
            r"(`+)(?!`).+?(?<!`)\1(?!`)",
            r"\$\$.+?\$\$",
            r"\$[^$\n]+\$",
        ):
            text = re.sub(code, " ", text, flags=re.M | re.S)
        return text


Rule = Callable[[Page], Iterator[str]]


def executed(page: Page) -> Iterator[str]:
    counts = [cell.execution_count for cell in page.code]
    if counts != list(range(1, len(counts) + 1)):
        yield f"code cells must have run once, top to bottom, but their counts are {counts}"


def without_errors(page: Page) -> Iterator[str]:
    for output in page.outputs:
        if output.output_type == "error":
            yield f"an output is an error: {output.ename}: {output.evalue}"


def without_widget_state(page: Page) -> Iterator[str]:
    if "widgets" in page.notebook.metadata:
        yield "the metadata holds widget state: execute with --ExecutePreprocessor.store_widget_state=False"


def small(page: Page) -> Iterator[str]:
    size = page.path.stat().st_size
    if size >= LARGEST:
        yield f"{size} bytes, at least {LARGEST}"


def headings(page: Page) -> Iterator[str]:
    found = re.finditer(
        r"^ {0,3}(#{1,6})[ \t]+\S|<h([1-6])\b|^ {0,3}[^\s#>|-][^\n]*\n {0,3}(=+|-{2,})[ \t]*$", page.prose, re.M
    )
    levels = [len(m[1]) if m[1] else int(m[2]) if m[2] else 1 if m[3][0] == "=" else 2 for m in found]
    if levels.count(1) != 1 or levels[0] != 1:
        yield f"the first heading must be the only one of level 1, but the levels are {levels}"
    for above, below in zip(levels, levels[1:], strict=False):
        if below > above + 1:
            yield f"a heading of level {below} follows one of level {above}"


class Tags(HTMLParser):
    """The links and pictures of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.without_text: list[str] = []
        self.svg_open = False
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag == "img":
            self.links.append(given.get("src") or "")
            if not (given.get("alt") or "").strip():
                self.without_text.append(f"<img src={given.get('src', '')[:60]!r}>")
        elif tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag == "svg" and not {"aria-label", "aria-labelledby", "aria-hidden"} & set(given):
            self.without_text.append("<svg>")
            self.svg_open = True
        elif tag == "title" and self.svg_open:
            self.without_text.remove("<svg>")
            self.svg_open = False

    def handle_endtag(self, tag: str) -> None:
        self.svg_open = self.svg_open and tag != "svg"


def alt_texts(page: Page) -> Iterator[str]:
    for target in re.findall(r"!\[\s*\](?:\(([^)]*)\)|\[[^\]]*\])", page.prose):
        yield f"an image has no alt text: {target}"
    html = [page.prose, *(output.data["text/html"] for output in page.outputs if "text/html" in output.get("data", {}))]
    for tag in (tag for each in html for tag in Tags(each).without_text):
        yield f"a picture has no alt text: {tag}"
    for output in page.outputs:
        for kind in output.get("data", {}):
            about = output.metadata
            if kind.startswith("image/") and not (about.get("alt") or about.get(kind, {}).get("alt")):
                yield f"an output of kind {kind} has no alt text: use IPython.display.Image(..., alt=...)"


def anchors(page: Path) -> set[str]:
    """The fragments by which a Markdown page's headings are linked, as GitHub makes them."""
    text = page.read_text(encoding="utf-8")
    titles = re.findall(r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t]*$", re.sub(FENCED, "", text, flags=re.M | re.S), re.M)
    found: set[str] = set()
    seen: Counter[str] = Counter()
    for title in titles:
        words = re.sub(r"\]\([^)]*\)", "", title).lower()  # a link's text without its target
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def links(page: Page) -> Iterator[str]:
    targets = re.findall(r"\]\(\s*<?([^)\s>]+)", page.prose) + re.findall(
        r"^ {0,3}\[[^\]]+\]:\s*(\S+)", page.prose, re.M
    )
    attached = {name for cell in page.notebook.cells for name in cell.get("attachments", {})}
    for target in targets + Tags(page.prose).links:
        url = urlsplit(target)
        if url.scheme == "attachment":
            if unquote(url.path) not in attached:
                yield f"nothing is attached for {target}"
        elif url.scheme in ("http", "https", "mailto", "data") or target == "":
            continue
        elif url.scheme or url.netloc or url.path.startswith("/"):
            yield f"a link must be relative or lead to the web: {target}"
        else:
            place = (page.path.parent / unquote(url.path)).resolve() if url.path else page.path
            if not place.exists() or not place.is_relative_to(page.root.resolve()):
                yield f"a link leads nowhere: {target}"
            elif url.fragment and place.suffix == ".md" and unquote(url.fragment) not in anchors(place):
                yield f"a link leads to no heading: {target}"


def short_cells(page: Page) -> Iterator[str]:
    for cell in page.code:
        lines = len(cell.source.strip().splitlines())
        if lines > LONGEST_CELL:
            yield f"a code cell has {lines} lines, more than {LONGEST_CELL}: {cell.source.strip().splitlines()[0]}"


def without_machine_paths(page: Page) -> Iterator[str]:
    for output in page.outputs:
        told = {kind: value for kind, value in output.get("data", {}).items() if not kind.startswith("image/")}
        text = output.get("text") or json.dumps(told, ensure_ascii=False)
        for found in MACHINE_PATH.findall(text):
            yield f"an output tells a path of the machine: {found}"


def comments(cell: NotebookNode) -> list[str]:
    """For each line its comment, "" where it is code."""
    return [
        line.strip().lstrip("#").strip() if line.strip().startswith("#") else "" for line in cell.source.splitlines()
    ]


def ignored(cell: NotebookNode) -> bool:
    return IGNORE in comments(cell)


def ignore_by_the_rule(page: Page) -> Iterator[str]:
    """Only the comment, alone on its line as nbval wants it, with the reason on a comment line beside it."""
    for i, cell in enumerate(page.code):
        tags = [tag for tag in cell.metadata.get("tags", []) if tag == "raises-exception" or tag.startswith("nbval")]
        for other in tags + [marker for marker in OTHER_MARKERS if marker in comments(cell)]:
            yield f"{other} is not used here: only the comment # {IGNORE}"
        told = comments(cell)
        for at, comment in enumerate(told):
            if comment.startswith(IGNORE) and comment != IGNORE:
                yield f"nbval does not see '# {comment}': the marker stands alone, the reason on the comment line below"
            elif comment == IGNORE:
                beside = told[max(0, at - 1) : at] + told[at + 1 : at + 2]
                if not any(len(each.split()) >= 3 for each in beside):
                    yield f"# {IGNORE} without a reason on the comment line below"
                if i + 1 == len(page.code) or not asserts(page.code[i + 1]):
                    yield f"# {IGNORE}, and the next code cell does not assert what must hold anyway"


def statements(cell: NotebookNode) -> list[ast.stmt] | None:
    """The cell's code without lines of magic; None where that is no Python."""
    try:
        return ast.parse(re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.M)).body
    except SyntaxError:
        return None


def asserts(cell: NotebookNode) -> bool:
    nodes = (node for each in statements(cell) or [] for node in ast.walk(each))
    return any(isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant) for node in nodes)


def mostly_compared(page: Page) -> Iterator[str]:
    """At most a quarter is ignored; a cell that prints a constant compares nothing and does not count."""
    bearing = [cell for cell in page.code if cell.outputs and (ignored(cell) or not prints_constants(cell))]
    part = sum(map(ignored, bearing))
    if 4 * part > len(bearing):
        yield f"{part} of {len(bearing)} cells with an output worth comparing are ignored, more than a quarter"


def prints_constants(cell: NotebookNode) -> bool:
    body = statements(cell)
    return bool(body) and all(isinstance(each, ast.Expr) and _constant(each.value) for each in body)


def _constant(value: ast.expr) -> bool:
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "print":
        return all(isinstance(each, ast.Constant) for each in value.args)
    return isinstance(value, ast.Constant)


ON_PAGES: list[Rule] = [headings, alt_texts, links]
ON_NOTEBOOKS: list[Rule] = [
    *ON_PAGES,
    executed,
    without_errors,
    without_widget_state,
    small,
    short_cells,
    without_machine_paths,
    ignore_by_the_rule,
    mostly_compared,
]


def problems(path: Path, root: Path = ROOT) -> list[tuple[str, str]]:
    """What is wrong with a page: the rule's name and what it says."""
    if path.suffix == ".ipynb":
        notebook, rules = nbformat.read(path, as_version=4), ON_NOTEBOOKS
        nbformat.validate(notebook)
    else:
        cell = nbformat.v4.new_markdown_cell(path.read_text(encoding="utf-8"))
        notebook, rules = nbformat.v4.new_notebook(cells=[cell]), ON_PAGES
    page = Page(path, notebook, root)
    return [(rule.__name__, said) for rule in rules for said in rule(page)]


def test_there_is_a_notebook() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", [*NOTEBOOKS, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_page_is_whole(path: Path) -> None:
    assert problems(path) == []


def reading_times() -> ModuleType:
    """The script in docs, which is in no package."""
    spec = importlib.util.spec_from_file_location("reading_times", ROOT / "docs/reading_times.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_times_are_counted_from_the_pages() -> None:
    stale = [path.name for path, text in reading_times().pages().items() if path.read_text(encoding="utf-8") != text]
    assert not stale, f"run python docs/reading_times.py: {stale}"


def test_a_time_counts_words_cells_and_headings() -> None:
    cells = [
        markdown("# Title\n\n![not these words](bars.png)\n\n" + "word " * 999),
        *(code(f"x = {n}") for n in range(10)),
        markdown("### 1. First (easy, 10 minutes)"),
        code("def first(): ...  # your code here"),
        markdown("## References\n\n" + "name " * 999),
        *(code(f"y = {n}") for n in range(99)),
    ]
    times = reading_times()
    assert times.minutes(nbformat.v4.new_notebook(cells=cells)) == (10, 10)  # 1,005 words are 5 minutes, 10 cells 5
    assert times.row(10, 10) == "10 to read, 10 for the exercises"


# The rules themselves, on planted notebooks.


def code(source: str, *outputs: NotebookNode, **more: object) -> NotebookNode:
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), **more)


def said(text: str) -> NotebookNode:
    return nbformat.v4.new_output("stream", name="stdout", text=text)


def shown(**data: object) -> NotebookNode:
    return nbformat.v4.new_output("display_data", data={kind.replace("_", "/"): value for kind, value in data.items()})


def markdown(text: str) -> NotebookNode:
    return nbformat.v4.new_markdown_cell(text)


def good() -> NotebookNode:
    cells = [
        markdown("# Title\n\n![two bars](bars.png) and [the licence](../LICENSE), see [the web](https://example.org)"),
        markdown("## Part\n\n```python\n# no heading [no](link)\n```\n\n`[a](b)` and $p[i](x)$\n\n<h3>Deeper</h3>"),
        code("x = 1"),
        code("print(x + 1)", said("2\n")),
        code(f"# {IGNORE}\n# the time depends on the machine\nprint(clock())", said("0.1\n")),
        code("assert clock() > 0\nprint(x + 2)", said("3\n")),
        code("print(x + 3)", said("4\n")),
        markdown("[a heading](other.md#two-words)"),
        code("figure", shown(text_html='<svg role="img" aria-label="bars"></svg><img src="data:," alt="dots">')),
    ]
    return nbformat.v4.new_notebook(cells=cells)


def renumbered(notebook: NotebookNode) -> NotebookNode:
    for count, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
    return notebook


def written(notebook: NotebookNode, folder: Path) -> Path:
    (folder / "notebooks").mkdir()
    (folder / "notebooks/bars.png").touch()
    (folder / "LICENSE").touch()
    (folder / "notebooks/other.md").write_text("# Words\n\n## Two words\n", encoding="utf-8")
    path = folder / "notebooks/page.ipynb"
    nbformat.write(notebook, path)
    return path


def test_a_good_notebook_passes(tmp_path: Path) -> None:
    assert problems(written(renumbered(good()), tmp_path), tmp_path) == []


def test_links_to_headings_are_followed(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    text = "# `run`: twice, [a link](https://example.org)!\n\n## Part_one\n\n```sh\n# comment\n```\n\n## Part_one\n\n"
    good = ["#run-twice-a-link", "#part_one", "#part_one-1", "page.md#part_one"]
    bad = ["#comment", "#part_one-2", "#Part_one", "page.md#run", "#"]
    path.write_text(text + " ".join(f"[x]({each})" for each in good + bad), encoding="utf-8")
    assert problems(path, tmp_path) == [("links", f"a link leads to no heading: {each}") for each in bad[:-1]]


IMAGE = shown(image_png="iVBORw0KGgo=")
ERROR = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])

ADDED: list[tuple[str, Rule, NotebookNode]] = [
    ("error", without_errors, code("f()", ERROR)),
    ("sixteen lines", short_cells, code("\n".join(f"y{i} = x" for i in range(16)))),
    ("large", small, code("print(x)", said("x" * LARGEST))),
    ("second title", headings, markdown("# Again")),
    ("second title in HTML", headings, markdown("<h1>Again</h1>")),
    ("second title underlined", headings, markdown("Again\n=====")),
    ("level skipped", headings, markdown("## Part\n\n#### Too deep")),
    ("image", alt_texts, markdown("![](bars.png)")),
    ("image by reference", alt_texts, markdown("![ ][bars]\n\n[bars]: bars.png")),
    ("image in HTML", alt_texts, markdown('<img src="bars.png">')),
    ("image in an output", alt_texts, code("show(x)", IMAGE)),
    ("image in an HTML output", alt_texts, code("show(x)", shown(text_html='<img src="data:," alt="">'))),
    ("drawing in an HTML output", alt_texts, code("show(x)", shown(text_html="<svg><path/></svg>"))),
    ("broken link", links, markdown("[gone](01_gone.ipynb)")),
    ("link to a missing heading", links, markdown("[gone](other.md#three-words)")),
    ("broken link by reference", links, markdown("[gone][1]\n\n[1]: gone.md")),
    ("broken link in HTML", links, markdown('<a href="gone.md">gone</a>')),
    ("broken image", links, markdown("[![bars](gone.png)](bars.png)")),
    ("link out of the repository", links, markdown("[up](../../)")),
    ("link from the root", links, markdown("[licence](/LICENSE)")),
    ("link to a file of the machine", links, markdown("[licence](file:LICENSE)")),
    ("attachment", links, markdown("![bars](attachment:bars.png)")),
    ("path printed", without_machine_paths, code("print(x)", said("saved to /home/ada/x.json\n"))),
    ("path in HTML", without_machine_paths, code("x", shown(text_html="<b>C:\\Users\\ada</b>"))),
    ("path in a warning", without_machine_paths, code("x", said("/tmp/ipykernel_71/1.py:3: Warning\n"))),
    ("no reason", ignore_by_the_rule, code(f"# {IGNORE}\nprint(clock())", said("1\n"))),
    ("reason where nbval misses it", ignore_by_the_rule, code(f"# {IGNORE}: a time, not a fact\nx", said("1\n"))),
    ("skipped", ignore_by_the_rule, code("# NBVAL_SKIP\nprint(x)", said("1\n"))),
    ("skipped by a tag", ignore_by_the_rule, code("print(x)", said("1\n"), metadata={"tags": ["nbval-skip"]})),
    ("may raise", ignore_by_the_rule, code("print(x)", said("1\n"), metadata={"tags": ["raises-exception"]})),
]


@pytest.mark.parametrize(("rule", "cell"), [each[1:] for each in ADDED], ids=[each[0] for each in ADDED])
def test_a_bad_cell_is_refused(rule: Rule, cell: NotebookNode, tmp_path: Path) -> None:
    """By the rule that forbids it, and by no other."""
    notebook = good()
    more = [code(f"print(x + {n})", said(f"{n}\n")) for n in range(8)]  # so that the quarter is not passed
    notebook.cells += [copy.deepcopy(cell), code("assert x < 2"), *more]
    if rule is headings and cell.source.startswith("##"):
        notebook.cells.insert(1, notebook.cells.pop(-len(more) - 2))
    assert {name for name, _ in problems(written(renumbered(notebook), tmp_path), tmp_path)} == {rule.__name__}


def stripped(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count, cell.outputs = None, []


def out_of_order(notebook: NotebookNode) -> None:
    notebook.cells[-1].execution_count = 99


def with_state(notebook: NotebookNode) -> None:
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}


def without_title(notebook: NotebookNode) -> None:
    notebook.cells[0].source = notebook.cells[0].source.replace("# Title", "Title")


def without_assert(notebook: NotebookNode) -> None:
    notebook.cells[5].source = "assert True\nprint(x + 2)"


def at_the_end(notebook: NotebookNode) -> None:
    notebook.cells.append(notebook.cells.pop(4))
    renumbered(notebook)


def two_of_five_ignored(notebook: NotebookNode) -> None:
    notebook.cells[3].source = f"# {IGNORE}\n# another reason of three words\nprint(x + 1)"
    notebook.cells.insert(4, code("assert x"))
    renumbered(notebook)


def constants_make_up_the_rest(notebook: NotebookNode) -> None:
    notebook.cells[3].source, notebook.cells[6].source = "print(2)", "'four'"


SPOILT: list[tuple[Callable[[NotebookNode], None], Rule]] = [
    (stripped, executed),
    (out_of_order, executed),
    (with_state, without_widget_state),
    (without_title, headings),
    (without_assert, ignore_by_the_rule),
    (at_the_end, ignore_by_the_rule),
    (two_of_five_ignored, mostly_compared),
    (constants_make_up_the_rest, mostly_compared),
]


@pytest.mark.parametrize(("spoil", "rule"), SPOILT, ids=[each[0].__name__ for each in SPOILT])
def test_a_spoilt_notebook_is_refused(spoil: Callable[[NotebookNode], None], rule: Rule, tmp_path: Path) -> None:
    notebook = renumbered(good())
    spoil(notebook)
    assert {name for name, _ in problems(written(notebook, tmp_path), tmp_path)} == {rule.__name__}


def test_every_rule_has_a_notebook_that_breaks_it() -> None:
    assert {rule for _, rule, _ in ADDED} | {rule for _, rule in SPOILT} == set(ON_NOTEBOOKS)


@pytest.mark.slow
def test_nbval_compares_outputs(tmp_path: Path) -> None:
    """The command of `make test-notebooks` refuses a number that is no longer what the cell prints."""
    for name, output in (("right", "2\n"), ("wrong", "3\n")):
        cell = code("print(1 + 1)", said(output), execution_count=1)
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / f"{name}.ipynb")
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "-rA", "."]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300).stdout
    assert re.search(r"^PASSED right.ipynb::Cell 0", told, re.M), told
    assert re.search(r"^FAILED wrong.ipynb::Cell 0", told, re.M), told
