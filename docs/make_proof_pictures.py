"""Remake the pictures of notebook 04, why the output is exactly the target's.

    python docs/make_proof_pictures.py [overlap residual_explorer overlap_bug]

Needs the extras `notebooks` and `browser`, and a Chromium. Hatched areas make large files, so these are
stored with a palette.
"""

from __future__ import annotations

import base64
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from make_pictures import chromium, plot

from specdec_lite.viz import ResidualExplorer, overlap_picture

if TYPE_CHECKING:
    import plotly.graph_objects as go

HERE = Path(__file__).parent
WIDTH = 820
NAMES, TARGET, DRAFT = ("sun", "rain", "mist"), (6 / 12, 4 / 12, 2 / 12), (3 / 12, 3 / 12, 6 / 12)


def explorer() -> go.Figure:
    """The widget's picture after 1,000 draws."""
    made = ResidualExplorer()
    made.move(draws=1000)
    return made.figure()


PICTURES: dict[str, Callable[[], Any]] = {
    "overlap": lambda: overlap_picture(TARGET, DRAFT, NAMES),
    "overlap_bug": lambda: overlap_picture(TARGET, DRAFT, NAMES, correction=TARGET),
    "residual_explorer": explorer,
}

# The pixels of a picture, four bytes each, as base64.
PIXELS = """async url => {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = Object.assign(document.createElement('canvas'), {width: image.width, height: image.height});
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    const blob = new Blob([context.getImageData(0, 0, image.width, image.height).data]);
    const read = await new Promise(done => {
        const reader = new FileReader();
        reader.onload = () => done(reader.result);
        reader.readAsDataURL(blob);
    });
    return [image.width, image.height, read.split(',')[1]];
}"""


def with_palette(width: int, height: int, pixels: bytes, colours: int = 64) -> bytes:
    """A PNG of the most frequent colours; the others become the nearest of those."""
    rgb = np.frombuffer(pixels, np.uint8).reshape(-1, 4)[:, :3]
    every, place, count = np.unique(rgb, axis=0, return_inverse=True, return_counts=True)
    palette: list[np.ndarray] = []
    for colour in every[np.argsort(-count)].astype(int):  # frequent ones first, none too near another
        if len(palette) < colours and all(np.abs(colour - each).sum() > 24 for each in palette):
            palette.append(colour)
    known = np.array(palette)
    nearest = np.abs(every[:, None, :].astype(int) - known[None]).sum(-1).argmin(1)
    lines = nearest[place.reshape(-1)].astype(np.uint8).reshape(height, width)
    body = np.hstack([np.zeros((height, 1), np.uint8), lines]).tobytes()  # each line begins with its filter, none
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", known.astype(np.uint8).tobytes()),
        (b"IDAT", zlib.compress(body, 9)),
        (b"IEND", b""),
    ]
    packed = (struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


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
            path.write_bytes(with_palette(width, height, base64.b64decode(pixels)))
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
