"""Remake the pictures of notebook 03, the algorithm built by hand.

    python docs/make_loop_pictures.py [cache_round cache_stepper]

Needs the extras `notebooks` and `browser`, and a Chromium. Stored with a palette, as those of notebook 04.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

from make_pictures import chromium, plot
from make_proof_pictures import PIXELS, with_palette

import specdec_lite as sd
from specdec_lite.teaching import toys as sentence
from specdec_lite.viz import CacheStepper, cache_steps, snapshots

HERE = Path(__file__).parent
WIDTH, K = 820, 4


def trace() -> sd.Trace:
    """The sentence, recited."""
    target, draft = sentence.pair()
    prompt, rest = sentence.ids(sentence.SENTENCE)[: sentence.PROMPT], len(sentence.SENTENCE) - sentence.PROMPT
    common = dict(max_new_tokens=rest, sampling=sd.Sampling(temperature=0), stop=sd.Stop())
    return sd.speculative(target, sd.ModelDrafter(draft), prompt, k=K, **common).trace


def one_round() -> str:
    """Four steps under each other, with one legend."""
    figures = [cache_steps(at, sentence.say, K) for at in snapshots(trace())[:4]]
    for figure in figures[:-1]:
        figure.update_layout(height=208, margin=dict(t=34, b=22), showlegend=False, xaxis=dict(title=None))
    figures[-1].update_layout(height=310, margin=dict(t=34, b=124))
    return "".join(plot(figure.update_layout(width=WIDTH)) for figure in figures)


def stepper() -> str:
    """The widget's picture where the draft reads what it had missed."""
    made = CacheStepper({"the sentence": (trace(), sentence.say)})
    made.move(round=3, step="draft")
    return plot(made.figure().update_layout(width=WIDTH))


PAGES = {"cache_round": one_round, "cache_stepper": stepper}


def main(names: list[str]) -> None:
    from playwright.sync_api import sync_playwright

    if unknown := set(names) - set(PAGES):
        sys.exit(f"no such picture: {', '.join(sorted(unknown))}; there are {', '.join(PAGES)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 1000}, device_scale_factor=1.6)
        for name in names or PAGES:
            page.set_content(f'<body style="margin:0;background:white"><div id="it">{PAGES[name]()}</div>')
            page.wait_for_timeout(2000)
            shot = page.locator("#it").screenshot(animations="disabled")
            width, height, pixels = page.evaluate(PIXELS, "data:image/png;base64," + base64.b64encode(shot).decode())
            path = HERE / f"{name}.png"
            path.write_bytes(with_palette(width, height, base64.b64decode(pixels), colours=32))
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
