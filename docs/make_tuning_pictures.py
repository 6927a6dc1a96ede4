"""Remake the pictures of notebook 06, K, cost and alignment.

    python docs/make_tuning_pictures.py [tuning_map tuning_sweep tuning_distil]

Needs the extras `notebooks` and `browser`, and a Chromium. The last two measure, so they differ from run to run.
"""

from __future__ import annotations

import base64
import sys
from typing import TYPE_CHECKING

import make_proof_pictures as proof
from make_pictures import chromium, plot

import specdec_lite as sd
from specdec_lite import viz
from specdec_lite.bench.sweep import sweep
from specdec_lite.pocket.prompts import BUILT_IN
from specdec_lite.training.live import LiveDistillation

if TYPE_CHECKING:
    import plotly.graph_objects as go

SECONDS, WIDTH = 30.0, 820


def speedup_map() -> go.Figure:
    """The widget's first picture, with the pocket pair where it was measured."""
    return viz.SpeedupMap(0.8, 0.1, 0.05, 4, own=(0.81, 0.09, "the pocket pair")).figure()


def measured() -> go.Figure:
    """Line and clock over K."""
    pair = sd.load_pair()
    ks = (1, 2, 3, 5, 8, 12)
    swept = sweep(pair.target, sd.ModelDrafter(pair.draft), BUILT_IN, ks=ks, repeats=5, max_new_tokens=64)
    print(swept.table())
    line = (ks, [swept.predicted(k) for k in ks])
    clock = (ks, [swept.by_the_clock(k).median for k in ks])
    name = "the pocket pair"
    return viz.curves({name: line}, {name: clock}, x="K", y="times as fast as naive", level=("naive", 1))


def distilled() -> go.Figure:
    """The overlap of a tiny draft, as it learns."""
    pair = sd.load_pair()
    prompts = [BUILT_IN[i % 3] for i in range(40)]
    text = sd.autoregressive(pair.target, prompts, max_new_tokens=128, stop=sd.Stop(), trace="off").tokens
    return viz.overlap_curve(LiveDistillation(pair.target, text).run(SECONDS, looks=20), target=0.8)


PICTURES = {"tuning_map": speedup_map, "tuning_sweep": measured, "tuning_distil": distilled}


def main(names: list[str]) -> None:
    from playwright.sync_api import sync_playwright

    if unknown := set(names) - set(PICTURES):
        sys.exit(f"no such picture: {', '.join(sorted(unknown))}; there are {', '.join(PICTURES)}")
    figures = {name: PICTURES[name]().update_layout(width=WIDTH) for name in names or PICTURES}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 700}, device_scale_factor=2)
        for name, figure in figures.items():
            page.set_content(f'<body style="margin:0;background:white"><div id="it">{plot(figure)}</div>')
            page.wait_for_timeout(1500)
            shot = base64.b64encode(page.locator("#it").screenshot(animations="disabled")).decode()
            width, height, pixels = page.evaluate(proof.PIXELS, "data:image/png;base64," + shot)
            path = proof.HERE / f"{name}.png"
            path.write_bytes(proof.with_palette(width, height, base64.b64decode(pixels), colours=200))
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
