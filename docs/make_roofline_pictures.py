"""Remake the pictures of notebook 01, why decoding waits for memory.

    python docs/make_roofline_pictures.py [two_needs roofline_explorer pass_times roofline_here]

The last two are measured on this machine. Needs the extras `notebooks` and `browser`, and a Chromium.
Stored with a palette, as those of notebook 04.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from make_pictures import chromium, plot
from make_proof_pictures import PIXELS, with_palette

import specdec_lite as sd
from specdec_lite import viz
from specdec_lite.bench.data_sheets import LLAMAS
from specdec_lite.bench.models_under_test import Subject, wide_llama
from specdec_lite.bench.passes import Passes, time_passes
from specdec_lite.bench.roofline import panel

if TYPE_CHECKING:
    import plotly.graph_objects as go

HERE = Path(__file__).parent
WIDTH = 820
ROWS, CONTEXT, ROUNDS = (1, 2, 4, 5, 8, 16), 128, 9


@cache
def timed() -> dict[str, dict[str, Passes]]:
    """The two models of the notebook."""
    wide, pocket = wide_llama(torch.device("cpu"), None), sd.load_pair().target.module
    modules = {"wide random Llama": wide, "pocket target": pocket}
    return {name: time_passes(module, ROWS, CONTEXT, ROUNDS) for name, module in modules.items()}


def needs() -> go.Figure:
    explorer = viz.RooflineExplorer()
    return viz.two_needs(LLAMAS["Llama 8B"].shape(), explorer.ceiling)


def here() -> go.Figure:
    subjects = [Subject(name, None, torch.get_num_threads(), passes=each) for name, each in timed().items()]
    return viz.roofline_figure([panel(each) for each in subjects])


PICTURES: dict[str, Callable[[], go.Figure]] = {
    "two_needs": needs,
    "roofline_explorer": lambda: viz.RooflineExplorer().figure(),
    "pass_times": lambda: viz.pass_times(timed()),
    "roofline_here": here,
}


def main(names: list[str]) -> None:
    from playwright.sync_api import sync_playwright

    if unknown := set(names) - set(PICTURES):
        sys.exit(f"no such picture: {', '.join(sorted(unknown))}; there are {', '.join(PICTURES)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 700}, device_scale_factor=2)
        for name in names or PICTURES:
            figure = PICTURES[name]().update_layout(width=WIDTH)
            page.set_content(f'<body style="margin:0;background:white"><div id="it">{plot(figure)}</div>')
            page.wait_for_timeout(1500)
            shot = page.locator("#it").screenshot(animations="disabled")
            width, height, pixels = page.evaluate(PIXELS, "data:image/png;base64," + base64.b64encode(shot).decode())
            path = HERE / f"{name}.png"
            path.write_bytes(with_palette(width, height, base64.b64decode(pixels), colours=48))
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB. {figure.layout.meta['alt']}")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
