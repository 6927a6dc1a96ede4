"""Remake the pictures in this folder from runs of the pocket pair on this machine.

    python docs/make_pictures.py [demo race tokens k_sweep]

README.md, docs/measuring.md and notebooks show them to readers without a kernel. Needs the extras `notebooks`
and `browser`, and a Chromium. `python -m specdec_lite.training.record_traces` comes first, since
`k_sweep` shows its recordings.
"""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import specdec_lite as sd
from specdec_lite import viz
from specdec_lite.pocket.prompts import BUILT_IN
from specdec_lite.pocket.recorded import load_recorded
from specdec_lite.viz.theme import BLUE, GREEN, INK, MONO, VERMILLION

if TYPE_CHECKING:
    import plotly.graph_objects as go

HERE = Path(__file__).parent
WIDTH = 900  # pixels of the page; pictures have twice as many, for sharp screens
LAPS = 5


def demo_page() -> str:
    """What `specdec demo` writes to a terminal of 92 columns."""
    here, there = pty.openpty()
    settings = os.environ | {"COLUMNS": "92", "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "specdec_lite.cli", "demo", "--max-new-tokens", "40"]
    child = subprocess.Popen(command, stdout=there, stderr=there, env=settings)
    os.close(there)
    written = b""
    try:
        while part := os.read(here, 65536):
            written += part
    except OSError:  # how Linux says that the other end has closed
        pass
    if child.wait() != 0:
        sys.exit(f"specdec demo failed:\n{written.decode()}")
    return (
        f'<pre style="font:13px/1.35 {MONO};color:{INK};margin:0;padding:14px 18px">{terminal(written.decode())}</pre>'
    )


STYLES = {"1": "font-weight:bold", "2": "color:#6E6E6E", "4": "text-decoration:underline"}
COLOURS = {"36": GREEN, "166": VERMILLION, "32": BLUE}  # what the terminal calls them


def terminal(text: str) -> str:
    """A terminal's text as HTML: bold, dim, underlined, three colours, and lines written over."""
    lines = [re.split("\r\033\\[K|\r(?=.)", line.rstrip("\r"))[-1] for line in text.split("\n")]
    page, styled = "", False
    for piece in re.split(r"(\033\[[0-9;]*m)", "\n".join(lines).strip("\n")):
        if not piece.startswith("\033"):
            page += escape(piece)
            continue
        page += "</span>" * styled
        codes = re.sub(r"38;5;(\d+)", lambda found: f"c{found[1]}", piece[2:-1]).split(";")
        looks = [STYLES.get(code) or f"color:{COLOURS[code[1:]]}" for code in codes if code not in ("", "0")]
        styled = bool(looks)
        page += f'<span style="{";".join(looks)}">' * styled
    return page + "</span>" * styled


def race_page() -> str:
    """The race of the first notebook: of five laps the one with the median ratio."""
    pair = sd.load_pair()
    common = dict(max_new_tokens=64, sampling=sd.Sampling(temperature=0), stop=sd.Stop())
    drafter, laps = sd.ModelDrafter(pair.draft), []
    for _ in range(1 + LAPS):  # the first warms up
        naive = sd.autoregressive(pair.target, BUILT_IN[0], **common)
        laps.append((naive, sd.speculative(pair.target, drafter, BUILT_IN[0], k=4, **common)))
    naive, fast = sorted(laps[1:], key=lambda lap: lap[0].seconds / lap[1].seconds)[LAPS // 2]
    return plot(viz.race(naive.trace, fast.trace, pair.tokenizer.decode))


def tokens_page() -> str:
    """The coloured text of the first notebook."""
    pair = sd.load_pair(dtype="float64")
    drafter, common = sd.ModelDrafter(pair.draft), dict(max_new_tokens=64, stop=sd.Stop())
    told = sd.speculative(pair.target, drafter, BUILT_IN[0], k=4, **common)
    return viz.tokens_html(told.trace, pair.tokenizer.decode, BUILT_IN[0])


# Draws what hovering shows over one accepted token whose chance was neither 0 nor 1: over or under it, and
# over that token where the box hides least.
HOVER = """
const all = [...document.querySelectorAll('span[title]')], accepted = all.filter(s => / accepted,/.test(s.title));
const doubtful = accepted.filter(s => (m => m && m[1] > 0.2 && m[1] < 0.9)(s.title.match(/chance ([0-9.]+)/)));
const box = document.body.appendChild(document.createElement('div'));
box.style = `position:absolute;white-space:pre;font:13px/1.4 Arial,sans-serif;background:#FFFFFF;padding:6px 10px;
    border:1.5px solid #1A1A1A;box-shadow:2px 3px 6px #00000055`;
const places = (doubtful.length ? doubtful : accepted).flatMap(token => {
    box.textContent = token.title;
    const at = token.getBoundingClientRect(), left = Math.min(at.left + 12, 820 - box.offsetWidth);
    return [at.top - box.offsetHeight - 6, at.bottom + 8].map(top => {
        const [right, bottom] = [left + box.offsetWidth, top + box.offsetHeight];
        const under = r => r.left < right && r.right > left && r.top < bottom && r.bottom > top;
        const hidden = all.filter(s => [...s.getClientRects()].some(under)).length;
        const outside = top < 40 || bottom > document.getElementById('it').offsetHeight;
        return {token, left, top, hidden: hidden + 1000 * outside};
    });
});
const best = places.reduce((one, other) => other.hidden < one.hidden ? other : one);
best.token.style.outline = '2px solid #1A1A1A';
box.textContent = best.token.title;
box.style.left = `${best.left}px`;
box.style.top = `${best.top}px`;
"""


def k_sweep_page() -> str:
    """Every recording at once."""
    return plot(viz.k_sweep(load_recorded()))


def plot(figure: go.Figure) -> str:
    return figure.to_html(full_html=False, include_plotlyjs=True, config={"displayModeBar": False})


PAGES = {"demo": demo_page, "race": race_page, "tokens": tokens_page, "k_sweep": k_sweep_page}


def chromium() -> str:
    """The browser that draws.

    Raises:
        SystemExit: none found.
    """
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome")))
    return next(found, None) or sys.exit("no Chromium found: on Debian, apt-get install -y chromium")


def main(names: list[str]) -> None:
    from playwright.sync_api import sync_playwright

    if unknown := set(names) - set(PAGES):
        sys.exit(f"no such picture: {', '.join(sorted(unknown))}; there are {', '.join(PAGES)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 700}, device_scale_factor=2)
        for name in names or PAGES:
            page.set_content(f'<body style="margin:0;background:white"><div id="it">{PAGES[name]()}</div>')
            if name == "tokens":
                page.evaluate(f"() => {{{HOVER}}}")
            page.wait_for_timeout(1500)
            path = HERE / f"{name}.png"
            page.locator("#it").screenshot(path=path, animations="disabled")
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
