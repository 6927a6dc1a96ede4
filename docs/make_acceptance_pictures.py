"""Remake the pictures of notebook 05, seeing acceptance.

    python docs/make_acceptance_pictures.py [acceptance_metrics acceptance_text acceptance_by_position ...]

Needs the extras `notebooks` and `browser`, and a Chromium. Drawn from recordings that ship, stored with a palette.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import torch
from make_pictures import chromium, plot
from make_proof_pictures import PIXELS, with_palette

from specdec_lite import Sampling, load_pair, viz
from specdec_lite.acceptance import overlap
from specdec_lite.pocket.recorded import load_places, load_recorded
from specdec_lite.sampling.distributions import probabilities
from specdec_lite.theory.acceptance_counts import expected
from specdec_lite.training.record_places import logits_along

HERE = Path(__file__).parent
WIDTH, K = 820, 4
PLACES, RECORDED = load_places(), load_recorded()[-1]


def metrics() -> str:
    chances = [each.chance for each in PLACES[1.0].texts]
    return plot(viz.metrics_by_k({k: expected(chances, k) for k in range(1, 9)}).update_layout(width=WIDTH))


def text() -> str:
    return viz.tokens_html(RECORDED.runs[K], RECORDED.decode, RECORDED.prompt)


def by_position() -> str:
    chances = [each.chance for each in PLACES[1.0].texts]
    return plot(viz.verdicts_by_position(expected(chances, 8), sampled=False).update_layout(width=WIDTH))


def temperature() -> str:
    pair, read = load_pair(), []
    for model in (pair.target, pair.draft):
        along = [logits_along(model, [*each.prompt, *each.tokens], len(each.prompt)) for each in PLACES[1.0].texts]
        read.append(torch.cat(along))  # [places, vocab]
    heats = [Sampling(temperature=each) for each in PLACES]
    lines = {
        "each temperature's own texts": [each.mean_overlap for each in PLACES.values()],
        "the texts of temperature 1": [overlap(*(probabilities(x, h) for x in read)).mean().item() for h in heats],
    }
    made = viz.curves({k: (list(PLACES), v) for k, v in lines.items()}, x="temperature", y="mean overlap")
    return plot(made.update_yaxes(range=[0.6, 1]).update_layout(width=WIDTH))


def timeline() -> str:
    return plot(viz.recorded_race(RECORDED, K).update_layout(width=WIDTH))


def explorer() -> str:
    return plot(viz.AcceptanceExplorer().figure().update_layout(width=WIDTH))


PAGES = {
    "acceptance_metrics": metrics,
    "acceptance_text": text,
    "acceptance_by_position": by_position,
    "acceptance_temperature": temperature,
    "acceptance_timeline": timeline,
    "acceptance_explorer": explorer,
}


def main(names: list[str]) -> None:
    from playwright.sync_api import sync_playwright

    if unknown := set(names) - set(PAGES):
        sys.exit(f"no such picture: {', '.join(sorted(unknown))}; there are {', '.join(PAGES)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 1000}, device_scale_factor=1.6)
        for name in names or PAGES:
            page.set_content(f'<body style="margin:0;background:white"><div id="it">{PAGES[name]()}</div>')
            page.wait_for_timeout(1500)
            shot = page.locator("#it").screenshot(animations="disabled")
            width, height, pixels = page.evaluate(PIXELS, "data:image/png;base64," + base64.b64encode(shot).decode())
            path = HERE / f"{name}.png"
            path.write_bytes(with_palette(width, height, base64.b64decode(pixels), colours=32))
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
