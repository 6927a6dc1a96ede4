"""A model is trusted after a probe: cached, rewound and ragged forwards against an uncached one.

No list of blessed architectures can promise that a model keeps all its state in the arena, reads
explicit masks and takes explicit positions. A dozen tokens can.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .models import TransformersModel

# Largest part of the logits' spread by which two correct forwards may differ, by dtype.
# In float64 they may differ by float32's rounding: eager attention takes its softmax there.
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 2e-1}


@torch.inference_mode()
def probe(model: TransformersModel, role: str = "model") -> None:
    """Compare the ways in which the loop runs a model with the plain, uncached one.

    Raises:
        ValueError: they part; says which way and by how much. Or the model does not run that way at all.
    """
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(model.vocab_size, (2, 12), generator=generator).to(model.device)  # [2, 12]
    truth = model.module(input_ids=text, use_cache=False).logits  # [2, 12, vocab]
    spread = truth.float().std().item()
    for way, run in (("cached", cached), ("rewound", rewound), ("ragged", ragged)):
        try:
            got = run(model, text)
        except Exception as error:
            raise ValueError(
                f"the {role} ({type(model.module).__name__}) does not run with keys, values, mask and positions "
                f"that are given to it, in a {way} forward: {type(error).__name__}: {error}"
            ) from error
        apart = (got.float() - truth[:, -got.shape[1] :].float()).abs().max().item() / max(spread, 1e-12)
        if not apart <= TOLERANCE.get(model.dtype, 2e-1):
            raise ValueError(
                f"the {role} ({type(model.module).__name__}) gives other logits in a {way} forward than without a "
                f"cache (apart by {apart:.2g} of their spread): it keeps state outside keys and values, or ignores the "
                "mask or the positions it is given. Speculative decoding with it would not be exact."
            )


def cached(model: TransformersModel, text: Tensor) -> Tensor:
    """Prefix, then the rest in two pieces. -> logits of the last 4 tokens [2, 4, vocab]."""
    cache = model.new_cache(2, 16)
    model.forward(text[:, :8], cache)
    return torch.cat([model.forward(text[:, 8:9], cache), model.forward(text[:, 9:], cache)], 1)


def rewound(model: TransformersModel, text: Tensor) -> Tensor:
    """Append wrong tokens, forget them, go on. -> [2, 4, vocab]"""
    cache = model.new_cache(2, 16)
    model.forward(text[:, :8], cache)
    model.forward((text[:, 8:] + 1) % model.vocab_size, cache)
    cache.rewind([4, 4])
    return model.forward(text[:, 8:], cache)


def ragged(model: TransformersModel, text: Tensor) -> Tensor:
    """Rows that rewind by different amounts, then meet again at the end. -> [2, 1, vocab]"""
    cache = model.new_cache(2, 20)
    model.forward(torch.cat([text[:, :8], (text[:, 8:] + 1) % model.vocab_size], 1), cache)
    cache.rewind([4, 7])  # rows keep 8 and 5 tokens
    feed = torch.stack([torch.cat([text[0, 8:], text[0, :3]]), text[1, 5:]])  # [2, 7], row 0 padded
    logits = model.forward(feed, cache)
    return torch.stack([logits[0, 3], logits[1, 6]]).unsqueeze(1)
