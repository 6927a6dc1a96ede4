"""Remake the pictures of notebook 02, one token at a time.

    python docs/make_naive_pictures.py [next_token next_token_explorer text_growth cache_growth]

The third is measured on this machine. Needs the extras `notebooks` and `browser`, and a Chromium. Stored
with a palette, as those of notebook 04.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from make_pictures import chromium, plot
from make_proof_pictures import PIXELS, with_palette

import specdec_lite as sd
from specdec_lite.bench.growth import step_times
from specdec_lite.viz import NextTokenExplorer, cache_growth, step_growth

if TYPE_CHECKING:
    import plotly.graph_objects as go

HERE = Path(__file__).parent
WIDTH = 820
TEXT = "import os"
LENGTHS = (16, 64, 128, 256, 512, 768, 1024)


def explorer() -> NextTokenExplorer:
    """The notebook's first place."""
    pair = sd.load_pair(dtype="float64")
    ids = pair.tokenizer.encode(TEXT + "\nimport")
    with torch.inference_mode():
        logits = pair.target.forward(torch.tensor([ids]), pair.target.new_cache(1, len(ids)))[0, -1]
    return NextTokenExplorer({"after 'import os\\nimport'": logits}, pair.tokenizer.decode)


def moved(**changes: float) -> go.Figure:
    made = explorer()
    made.move(**changes)
    return made.figure()


PICTURES: dict[str, Callable[[], go.Figure]] = {
    "next_token": lambda: moved(uniform=0.36),
    "next_token_explorer": lambda: moved(uniform=0.36, temperature=0.7, top_k=10, top_p=0.8),
    "text_growth": lambda: step_growth(step_times(sd.load_pair().target, LENGTHS, rounds=15)),
    "cache_growth": lambda: cache_growth(131_072, 16_060_522_496),
}


def main(names: list[str]) -> None:
    from playwright.sync_api import sync_playwright

    if unknown := set(names) - set(PICTURES):
        sys.exit(f"no such picture: {', '.join(sorted(unknown))}; there are {', '.join(PICTURES)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 700}, device_scale_factor=1.6)
        for name in names or PICTURES:
            figure = PICTURES[name]().update_layout(width=WIDTH)
            page.set_content(f'<body style="margin:0;background:white"><div id="it">{plot(figure)}</div>')
            page.wait_for_timeout(1500)
            shot = page.locator("#it").screenshot(animations="disabled")
            width, height, pixels = page.evaluate(PIXELS, "data:image/png;base64," + base64.b64encode(shot).decode())
            path = HERE / f"{name}.png"
            path.write_bytes(with_palette(width, height, base64.b64decode(pixels), colours=48))
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
