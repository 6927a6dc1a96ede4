"""A real browser: JupyterLab runs every notebook to its last cell, and its controls move what they should.

`pytest -m browser` runs it; it is skipped, with the reason, where Playwright or a Chromium is missing.
The pictures it takes lie in `screenshots/` afterwards: look at them, they are not committed.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from specdec_lite.teaching.museum import MUSEUM

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

ROOT = Path(__file__).parents[1]
SHOTS = ROOT / "screenshots"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"), reverse=True)  # the last two take longest
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
SETTINGS = {  # nothing pops up, every cell is drawn, nothing is saved
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: on Debian, apt-get install -y chromium"),
]


@dataclass
class Lab:
    """A JupyterLab of its own, with fresh settings, on a copy of the notebooks."""

    url: str
    token: str

    def address(self, notebook: Path) -> str:
        return f"{self.url}/lab/tree/notebooks/{notebook.name}?reset&token={self.token}"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    root = folder / "root"
    shutil.copytree(ROOT / "docs", root / "docs")
    (root / "notebooks").mkdir()
    for path in NOTEBOOKS:
        (root / "notebooks" / path.name).write_text(cleared(path), encoding="utf-8")
    (folder / "app").mkdir()
    (folder / "app/overrides.json").write_text(json.dumps(SETTINGS))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = Lab(f"http://127.0.0.1:{port}", secrets.token_hex(16))
    names = {"CONFIG_DIR": "config", "DATA_DIR": "data", "RUNTIME_DIR": "runtime"}
    fresh = {f"JUPYTER_{name}": str(folder / place) for name, place in names.items()}
    fresh |= {f"JUPYTERLAB_{name}_DIR": str(folder / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={made.token}", f"--ServerApp.root_dir={root}",
        f"--LabApp.app_settings_dir={folder / 'app'}", "--LabApp.news_url=None", "--LabApp.extension_manager=readonly",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=os.environ | fresh, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(made, server, folder / "lab.log")
        yield made
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def cleared(path: Path) -> str:
    """A notebook without outputs: committed execution counts would look as if it had run."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    return json.dumps(notebook)


def wait_for(lab: Lab, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(480):
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"{lab.url}/api/status?token={lab.token}", timeout=2)
            return
        except OSError:
            time.sleep(0.25)
    pytest.fail(f"JupyterLab did not start within two minutes: {log.read_text()[-2000:]}")


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path), executable_path=CHROMIUM, headless=True, args=FLAGS, viewport={"width": 1300, "height": 1100}
        )
        yield context.pages[0]
        context.close()


# of cells whose code is shown; a folded one has a placeholder
PROMPTS = (
    "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt:not(.jp-Placeholder-prompt)')].map(e => e.textContent)"
)
BAD_OUTPUT = (
    ".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr'], "
    ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']"
)


def run_all(page: Any, lab: Lab, notebook: Path) -> None:
    """Open a notebook and run it to its last cell, without an error and with every picture shown."""
    page.goto(lab.address(notebook))
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=120_000)
    page.click(".jp-Notebook .jp-Cell >> nth=0")
    for _ in range(5):  # what is sent before the kernel listens is dropped without a word
        page.click(".lm-MenuBar-itemLabel:text-is('Run')")
        page.click(".lm-Menu-itemLabel:text-is('Run All Cells')")
        try:
            page.wait_for_function(rf"() => {PROMPTS}.some(t => /\[(\*|\d+)\]/.test(t))", timeout=10_000)
            break
        except sync_api.TimeoutError:
            continue
    done = rf"{PROMPTS}.every(t => /\[\d+\]:/.test(t))"
    try:  # a cell that fails stops the others
        page.wait_for_function(f"() => {done} || document.querySelector({json.dumps(BAD_OUTPUT)})", timeout=600_000)
    except sync_api.TimeoutError:
        SHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SHOTS / f"{notebook.stem}_stuck.png")
        pytest.fail(f"cells still run or wait after ten minutes: {page.evaluate(PROMPTS)}")
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=120_000)  # folded ones too
    bad = page.locator(BAD_OUTPUT)
    assert bad.count() == 0, bad.all_text_contents()
    unseen = "[...document.querySelectorAll('.jp-MarkdownCell img')].filter(i => !i.naturalWidth).map(i => i.src)"
    assert page.evaluate(unseen) == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_and_its_controls_move(notebook: Path, lab: Lab, page: Any) -> None:
    run_all(page, lab, notebook)
    CONTROLS.get(notebook.stem, lambda page: None)(page)


def start_here(page: Any) -> None:
    """The race is drawn, tokens tell why they are there, and the slider moves figure, readout and text."""
    SHOTS.mkdir(exist_ok=True)
    race = page.locator(".jp-OutputArea .js-plotly-plot").first
    race.scroll_into_view_if_needed()
    assert race.locator(".barlayer .point").count() > 64
    page.screenshot(path=SHOTS / "00_race.png")

    token = page.locator(".jp-OutputArea span[title*='uniform']").first
    assert "p_target" in token.get_attribute("title")
    token.scroll_into_view_if_needed()
    page.screenshot(path=SHOTS / "00_tokens.png")

    readout, plot = page.locator(".specdec-readout"), page.locator(".jp-OutputArea .js-plotly-plot").last
    handle = page.locator(".widget-slider .noUi-handle").first
    handle.scroll_into_view_if_needed()
    sync_api.expect(readout).to_contain_text("K = 8, temperature 1:")  # where the notebook's last cells left it
    page.screenshot(path=SHOTS / "00_slider_before.png")
    before = seen(page, plot)
    handle.focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    sync_api.expect(readout).to_contain_text("K = 3, temperature 1:")
    moved = changed(page, plot, before)
    page.locator(".widget-toggle-button", has_text="greedy").click()
    sync_api.expect(readout).to_contain_text("K = 3, greedy:")
    changed(page, plot, moved)
    page.screenshot(path=SHOTS / "00_slider_after.png")
    assert page.locator(BAD_OUTPUT).count() == 0


def seen(page: Any, plot: Any) -> tuple[str, str, str]:
    """Bars, labels and coloured text as the page shows them."""
    bars = plot.locator(".barlayer .point path").evaluate_all("all => all.map(e => e.getAttribute('d')).join()")
    labels = "".join(plot.locator(".annotation-text").all_text_contents())
    return bars, labels, page.locator(".jupyter-widgets .widget-html-content").last.text_content()


def changed(page: Any, plot: Any, before: tuple[str, str, str]) -> tuple[str, str, str]:
    """What is seen once all of it differs from before."""
    for _ in range(60):
        now = seen(page, plot)
        if all(new != old for new, old in zip(now, before, strict=True)):
            return now
        page.wait_for_timeout(250)
    pytest.fail(f"the figure, its labels or the text stayed as they were: {before[1]!r} then {now[1]!r}")


def rejection_sampling_proof(page: Any) -> None:
    """A score, the temperature and the rule each move the areas and the readout."""
    SHOTS.mkdir(exist_ok=True)
    readout, plot = page.locator(".specdec-readout"), page.locator(".jp-OutputArea .js-plotly-plot").last
    handles = page.locator(".jupyter-widgets .noUi-handle")  # five scores of each model, temperature, top-k, draws
    handles.nth(5).scroll_into_view_if_needed()
    sync_api.expect(readout).to_contain_text("Overlap 1.000")  # where the notebook's last cells left it
    page.screenshot(path=SHOTS / "04_widget_before.png")
    before = seen(page, plot)
    handles.nth(5).focus()  # the draft's score of its favourite
    for _ in range(4):
        page.keyboard.press("ArrowDown")
    sync_api.expect(readout).to_contain_text("Overlap 0.000")
    moved = changed(page, plot, before)
    handles.nth(10).focus()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    sync_api.expect(readout).not_to_contain_text("Overlap 0.000")
    moved = changed(page, plot, moved)
    page.locator(".widget-dropdown select").last.select_option(index=1)
    sync_api.expect(readout).to_contain_text("famous bug")
    changed(page, plot, moved)
    page.screenshot(path=SHOTS / "04_widget_after.png")
    assert page.locator(BAD_OUTPUT).count() == 0


def draft_then_verify(page: Any) -> None:
    """Buttons, steps, the round and the choice of runs each move the slots and the readout."""
    SHOTS.mkdir(exist_ok=True)
    readout, plot = page.locator(".specdec-readout"), page.locator(".jp-OutputArea .js-plotly-plot").last
    readout.scroll_into_view_if_needed()
    sync_api.expect(readout).to_contain_text("Round 1 of 6, draft:")  # where the notebook's last cells left it
    page.screenshot(path=SHOTS / "03_stepper_before.png")
    before = slots(plot)
    page.locator(".jupyter-button", has_text="next").click()
    sync_api.expect(readout).to_contain_text("Round 1 of 6, verify:")
    before = moved_slots(page, plot, before)
    page.locator(".widget-toggle-button", has_text="rewind").click()
    sync_api.expect(readout).to_contain_text("the text has 6 tokens, 3 of them new")
    before = moved_slots(page, plot, before)
    assert "aloud" in before and "hidden" in before
    page.screenshot(path=SHOTS / "03_stepper_rewind.png")
    handle = page.locator(".widget-slider .noUi-handle").first
    handle.focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    sync_api.expect(readout).to_contain_text("Round 3 of 6, rewind:")
    before = moved_slots(page, plot, before)
    page.locator(".widget-dropdown select").last.select_option(index=1)
    sync_api.expect(readout).not_to_contain_text("of 6,")
    moved_slots(page, plot, before)
    page.screenshot(path=SHOTS / "03_stepper_pocket.png")
    assert page.locator(BAD_OUTPUT).count() == 0


def slots(plot: Any) -> str:
    """The slots' words and outlines as the page shows them."""
    return plot.locator(".barlayer").evaluate("e => e.textContent + e.innerHTML.length")


def moved_slots(page: Any, plot: Any, before: str) -> str:
    for _ in range(60):
        if (now := slots(plot)) != before:
            return now
        page.wait_for_timeout(250)
    pytest.fail(f"the slots stayed as they were: {before!r}")


def bug_museum(page: Any) -> None:
    """An exhibit picked from the list moves bars, heading and readout."""
    SHOTS.mkdir(exist_ok=True)
    rows = page.locator(".jp-OutputArea .js-plotly-plot").first
    rows.scroll_into_view_if_needed()
    assert rows.locator(".barlayer .point").count() == len(MUSEUM)
    page.screenshot(path=SHOTS / "07_map.png")
    readout, plot = page.locator(".specdec-readout"), page.locator(".jp-OutputArea .js-plotly-plot").last
    choice = page.locator(".jupyter-widgets select").first
    choice.scroll_into_view_if_needed()
    sync_api.expect(readout).to_contain_text("last draft token not fed")  # where the notebook's last cells left it
    before = seen(page, plot)
    for name in ("resample from the target", "end of text inside a block"):
        choice.select_option(label=name)
        sync_api.expect(readout).to_contain_text(f"{name}, biased.")
        before = changed(page, plot, before)
        page.screenshot(path=SHOTS / f"07_{name.split()[0]}.png")
    assert page.locator(BAD_OUTPUT).count() == 0


def roofline(page: Any) -> None:
    """K and the device move dots, curve, labels and readout."""
    SHOTS.mkdir(exist_ok=True)
    readout, plot = page.locator(".specdec-readout"), page.locator(".jp-OutputArea .js-plotly-plot").first
    handles = page.locator(".jupyter-widgets .noUi-handle")  # batch, context, K
    handles.nth(2).scroll_into_view_if_needed()
    sync_api.expect(readout).to_contain_text("Verifying K = 4 takes 1.46 steps")  # where the last cells left it
    page.screenshot(path=SHOTS / "01_widget_before.png")

    def drawn() -> list[str]:
        paths = "all => all.map(e => e.getAttribute('d') + e.getAttribute('transform')).join()"
        labels = plot.locator(".annotation-text").all_text_contents()[2:]  # after the titles
        return [plot.locator(".scatterlayer path").evaluate_all(paths), *labels]

    def differs(before: list[str], parts: list[int]) -> list[str]:
        for _ in range(60):
            now = drawn()
            if all(now[part] != before[part] for part in parts):
                return now
            page.wait_for_timeout(250)
        pytest.fail(f"the figure or its labels stayed as they were: {before[1:]} then {now[1:]}")

    before = drawn()
    handles.nth(2).focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    sync_api.expect(readout).to_contain_text("Verifying K = 1 takes 1.00 steps")
    moved = differs(before, [0, 2])
    page.locator(".widget-dropdown select").first.select_option("H100 SXM")
    sync_api.expect(readout).to_contain_text("on H100 SXM, 1 text")
    moved = differs(moved, [0, 1])
    handles.nth(0).focus()
    for _ in range(7):
        page.keyboard.press("ArrowRight")
    sync_api.expect(readout).to_contain_text("128 texts of 1,024 tokens")
    differs(moved, [0])
    page.screenshot(path=SHOTS / "01_widget_after.png")
    page.locator(".jp-OutputArea .js-plotly-plot").last.scroll_into_view_if_needed()
    page.screenshot(path=SHOTS / "01_measured.png")
    assert page.locator(BAD_OUTPUT).count() == 0


def tuning_the_engine(page: Any) -> None:
    """Acceptance and K move the map, the curve and the readout."""
    SHOTS.mkdir(exist_ok=True)
    readout, plot = page.locator(".specdec-readout"), page.locator(".jp-OutputArea .js-plotly-plot:has(.contour)").last
    handles = page.locator(".jupyter-widgets .noUi-handle")  # acceptance, draft cost, verify cost, K
    handles.nth(0).scroll_into_view_if_needed()
    sync_api.expect(readout).to_contain_text("Acceptance 0.50")  # where the notebook's last cells left it
    page.screenshot(path=SHOTS / "06_map_before.png")

    def lines() -> str:
        return plot.locator(".contourlevel path").evaluate_all("all => all.map(e => e.getAttribute('d')).join()")

    handles.nth(0).focus()
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    sync_api.expect(readout).to_contain_text("Acceptance 0.80")
    before = lines()
    handles.nth(3).focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    sync_api.expect(readout).to_contain_text("K = 8:")
    for _ in range(60):
        if before != lines():
            break
        page.wait_for_timeout(250)
    assert before != lines()
    page.screenshot(path=SHOTS / "06_map_after.png")
    assert page.locator(BAD_OUTPUT).count() == 0


def naive_decoding(page: Any) -> None:
    """The number, the temperature, a cut and the place each move the bars and the readout."""
    SHOTS.mkdir(exist_ok=True)
    readout = page.locator(".specdec-readout")
    plot = page.locator(".jp-OutputArea .js-plotly-plot").last.locator(".subplot.x2y2")  # the long bar
    readout.scroll_into_view_if_needed()
    sync_api.expect(readout).to_contain_text("Temperature 2, top-k off, top-p 0.5")  # where the notebook left it
    page.screenshot(path=SHOTS / "02_widget_before.png")
    before = plot.inner_html()
    handles = page.locator(".jupyter-widgets .noUi-handle")  # temperature, top-k, top-p, uniform
    handles.nth(0).focus()
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    sync_api.expect(readout).to_contain_text("Temperature 1, top-k off, top-p 0.5")
    before = redrawn(page, plot, before)
    handles.nth(1).focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    sync_api.expect(readout).to_contain_text("top-k 3, top-p 0.5: 2 tokens can be drawn")
    before = redrawn(page, plot, before)
    sync_api.expect(readout).to_contain_text("u = 0.950 picks")
    was = readout.text_content()
    handles.nth(3).focus()
    for _ in range(9):
        page.keyboard.press("PageDown")
    sync_api.expect(readout).not_to_contain_text("u = 0.950")
    assert readout.text_content() != was
    before = redrawn(page, plot, before)
    page.screenshot(path=SHOTS / "02_widget_after.png")
    page.locator(".widget-dropdown select").last.select_option(index=1)
    sync_api.expect(readout).to_contain_text("after 'def walk(path, depth=0):'")
    redrawn(page, plot, before)
    page.screenshot(path=SHOTS / "02_widget_place.png")
    assert page.locator(BAD_OUTPUT).count() == 0


def acceptance(page: Any) -> None:
    """Temperature, K and the choice of the text each move what they should."""
    SHOTS.mkdir(exist_ok=True)
    readout, plot = page.locator(".specdec-readout"), page.locator(".jp-OutputArea .js-plotly-plot").last
    handles = page.locator(".jupyter-widgets .noUi-handle")  # temperature, K
    handles.first.scroll_into_view_if_needed()
    sync_api.expect(readout).to_contain_text("Temperature 1.25, K = 1:")  # where the notebook's last cells left it
    page.screenshot(path=SHOTS / "05_explorer_before.png")
    before, words = slots(plot), page.locator(".jupyter-widgets .widget-html-content").last
    handles.nth(1).focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    sync_api.expect(readout).to_contain_text("Temperature 1.25, K = 5:")
    before, text = redrawn(page, plot, before), words.text_content()
    handles.first.focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    sync_api.expect(readout).to_contain_text("Greedy, K = 5:")
    redrawn(page, plot, before)
    sync_api.expect(words).not_to_have_text(text)
    text = words.text_content()
    number = page.locator(".jupyter-widgets input[type=number]").last
    number.fill("3")
    number.press("Enter")
    sync_api.expect(words).not_to_have_text(text)
    assert "chance" in words.locator("span[title]").first.get_attribute("title")
    page.screenshot(path=SHOTS / "05_explorer_after.png")
    assert page.locator(BAD_OUTPUT).count() == 0


def redrawn(page: Any, plot: Any, before: str) -> str:
    """What is drawn there once it differs from before."""
    for _ in range(60):
        if (now := plot.inner_html()) != before:
            return now
        page.wait_for_timeout(250)
    pytest.fail("the picture stayed as it was")


CONTROLS = {
    "02_naive_decoding": naive_decoding,
    "03_draft_then_verify": draft_then_verify,
    "00_start_here": start_here,
    "01_roofline": roofline,
    "04_rejection_sampling_proof": rejection_sampling_proof,
    "05_acceptance": acceptance,
    "06_tuning_the_engine": tuning_the_engine,
    "07_bug_museum": bug_museum,
}
