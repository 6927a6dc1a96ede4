"""The exercises of notebook 02, one token at a time.

What they call right is asked of the library: its sampling, its cache, its own greedy decoding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...decoding import autoregressive
from ...kv_cache import KVCache
from ...models import TableModel
from ...randomness import inverse_cdf
from ...sampling.distributions import Sampling, probabilities
from ...stopping import Stop
from ..toys import PROMPT, SENTENCE, Reader, ids, pair
from ._framework import Case, Check, shown

# From logits to a distribution

LOGITS: tuple[tuple[list[float], float, str], ...] = (
    ([0.0, 0.0], 1.0, "a tie"),
    ([1.0, 0.0], 1.0, ""),
    ([2.0, 1.0, 0.0], 0.5, "colder than the model"),
    ([2.0, 1.0, 0.0], 2.0, "warmer than the model"),
    ([-3.0, -1.0, -2.0], 1.0, "negative logits are as good as others"),
    ([1000.0, 999.0], 1.0, "logits so large that exp overflows"),
    ([1.0, 3.0, 2.0], 0.01, "nearly greedy, so that exp overflows unless the largest is subtracted first"),
    ([1.0, 3.0, 2.0], 0.0, "temperature 0: all of it on the largest logit"),
)


def _softmax(scores: Sequence[float]) -> list[float]:
    top = max(scores)
    parts = [math.exp(each - top) for each in scores]
    return [each / sum(parts) for each in parts]


def _one_hot(logits: Sequence[float]) -> list[float]:
    return [float(i == list(logits).index(max(logits))) for i in range(len(logits))]


def _cold(answer: Callable[[Sequence[float], float], list[float]]) -> Callable[..., list[float]]:
    """Greedy at temperature 0, as given elsewhere."""
    return lambda logits, t: _one_hot(logits) if t == 0 else answer(logits, t)


softmax = Check(
    "softmax",
    ("logits", "temperature"),
    [
        Case((logits, t), probabilities(torch.tensor(logits, dtype=torch.float64), Sampling(t)).tolist(), about)
        for logits, t, about in LOGITS
    ],
    {
        "Upside down: a temperature below 1 must sharpen. Divide the logits by it.": _cold(
            lambda logits, t: _softmax([each * t for each in logits])
        ),
        "The temperature makes no difference here. It must act on the logits, before exp.": _cold(
            lambda logits, t: _softmax(logits)
        ),
        "These sum to more than 1: divide each by the sum of all.": _cold(
            lambda logits, t: [math.exp(each / t) for each in logits]
        ),
        "The logits themselves are scaled here. Take exp first: a logit may be negative, a probability never.": _cold(
            lambda logits, t: [each / (sum(logits) or 1) for each in logits]
        ),
    },
    praise="A warm text wanders, a cold one repeats itself, and the model is the same.",
    hint="Three steps: divide by the temperature, exp, divide by the sum. Subtract the largest logit before exp.",
)

# From a distribution and a number to a token

THIRDS = [0.333] * 3
DRAWS: tuple[tuple[list[float], float, str], ...] = (
    ([0.5, 0.5], 0.25, ""),
    ([0.5, 0.5], 0.75, ""),
    ([0.25, 0.5, 0.25], 0.5, "the number falls into the second piece, which ends at 0.75"),
    ([0.5, 0.5], 0.5, "the number is where the first piece ends: that point belongs to the second"),
    ([0.0, 1.0], 0.0, "the first token cannot be drawn, and uniform numbers can be 0"),
    ([0.25, 0.0, 0.75], 0.25, "the token between cannot be drawn"),
    ([0.0, 0.0, 1.0, 0.0], 0.999, "neither the first nor the last can be drawn"),
    (THIRDS, 0.9995, "rounded, they add up to 0.999, and the number is above it"),
    ([*THIRDS, 0.0], 0.9995, "the sum is 0.999 again, and now the last token cannot be drawn"),
    ([0.3] * 3, 0.65, "the sum is 0.9: the number that counts is 0.65 times that"),
)


def _right(probs: Sequence[float], uniform: float) -> int:
    given = torch.tensor([list(probs)], dtype=torch.float64)
    return int(inverse_cdf(given, torch.tensor([uniform], dtype=torch.float64)))


def _walk(beyond: Callable[[float, float], bool], otherwise: Callable[[Sequence[float]], int]) -> Callable[..., int]:
    def draw(probs: Sequence[float], uniform: float) -> int:
        reached = 0.0
        for token, p in enumerate(probs):
            reached += p
            if beyond(reached, uniform):
                return token
        return otherwise(probs)

    return draw


def _last_possible(probs: Sequence[float]) -> int:
    return max(x for x, p in enumerate(probs) if p > 0)


def _drawn(right: int, probs: Sequence[float]) -> Callable[[Any], str]:
    """What is wrong with a token."""

    def told(got: Any) -> str:
        if got == right and not isinstance(got, bool):
            return ""
        if isinstance(got, int) and not isinstance(got, bool) and 0 <= got < len(probs) and probs[got] == 0:
            return f"gave {got}, a token of probability 0, expected {right}"
        return f"gave {shown(got)}, expected {right}"

    return told


draw = Check(
    "draw",
    ("probs", "uniform"),
    [Case((probs, u), _drawn(_right(probs, u), probs), about) for probs, u, about in DRAWS],
    {
        "That is the likeliest token, whatever the number says.": lambda probs, u: list(probs).index(max(probs)),
        "The comparison takes 'reached' as 'passed': with <= a number of 0 picks a first token of probability 0.": (
            _walk(lambda reached, u: u <= reached, lambda probs: len(probs) - 1)
        ),
        "Compare the number with the sum so far, not with each probability by itself.": (
            lambda probs, u: next((x for x, p in enumerate(probs) if u < p), _last_possible(probs))
        ),
        "Rounding can leave the whole sum below the number, and the last token may be one that cannot be drawn.": (
            _walk(lambda reached, u: u < reached, lambda probs: len(probs) - 1)
        ),
        "The bar may be a little shorter than 1, and the number is stretched with it: multiply it by the sum.": (
            _walk(lambda reached, u: u < reached, _last_possible)
        ),
    },
    praise="One number, one token, and never one of probability 0.",
    hint="Walk along the bar and stop where the sum first exceeds the number times the bar's length, strictly.",
)

# What is fed

TEXTS = (
    (1, 1, "one token, one more"),
    (1, 3, ""),
    (3, 1, "one new token: one forward over the prompt, whichever way"),
    (3, 2, ""),
    (33, 32, ""),
    (1000, 200, "a long prompt"),
)


def _fed(prompt: int, new: int) -> list[int]:
    return [sum(range(prompt, prompt + new)), prompt + new - 1]


token_forwards = Check(
    "token_forwards",
    ("prompt", "new"),
    [Case((prompt, new), _fed(prompt, new), about) for prompt, new, about in TEXTS],
    {
        "With a cache each token is fed once, and the last one never: nobody asks what follows it.": (
            lambda prompt, new: [_fed(prompt, new)[0], prompt + new]
        ),
        "The prompt has to be fed as well, once.": lambda prompt, new: [_fed(prompt, new)[0], new],
        "These are forwards. Count the tokens that go through the model in them.": lambda prompt, new: [new, new],
        "Without a cache the last step feeds every token but the newest: it runs before that one is written.": (
            lambda prompt, new: [sum(range(prompt, prompt + new + 1)), prompt + new - 1]
        ),
        "Without a cache the text grows: later steps feed more than the prompt.": (
            lambda prompt, new: [prompt * new, prompt + new - 1]
        ),
        "Both right, the other way round: without a cache comes first.": lambda prompt, new: _fed(prompt, new)[::-1],
    },
    praise="The first grows with the square of the text, the second with the text.",
    hint="Write down the forwards for a prompt of 3 and 2 new tokens, and how many tokens each is given.",
)

# What the cache takes

GB = 10**9
FITS = (
    (1000, 400, 1, 1, 1, 1, 100, "keys and values: 200 bytes a text"),
    (1000, 400, 1, 1, 1, 2, 100, "two bytes a number"),
    (1000, 400, 2, 1, 1, 1, 100, "two layers"),
    (1000, 400, 1, 1, 3, 1, 70, "part of a text does not count"),
    (1000, 990, 1, 1, 1, 1, 100, "no room for a single text"),
    (1000, 1500, 1, 1, 1, 1, 100, "not even the weights fit"),
    (80 * GB, 16_060_522_496, 32, 8, 128, 2, 8192, "an 8B Llama in bfloat16 on an accelerator of 80 GB"),
    (80 * GB, 16_060_522_496, 32, 32, 128, 2, 8192, "the same, if each of its 32 query heads had a key head"),
)


def _arena_bytes(layers: int, kv_heads: int, head_dim: int, size: int, tokens: int) -> int:
    """Asked of a cache that is written to: nothing is allocated on the device meta."""
    cache = KVCache(1, tokens, "meta")
    cache.reserve(1)
    dtype = {1: torch.int8, 2: torch.bfloat16, 4: torch.float32}[size]
    one = torch.empty(1, kv_heads, 1, head_dim, dtype=dtype, device="meta")
    for layer in range(layers):
        cache.update(one, one, layer)
    return cache.nbytes


def _fits(memory: int, weights: int, *shape: int) -> int:
    return max(0, (memory - weights) // _arena_bytes(*shape))


def _plain_fits(room: Callable[[int, int], float], a_text: Callable[..., float]) -> Callable[..., Any]:
    return lambda memory, weights, *shape: max(0, math.floor(room(memory, weights) / a_text(*shape)))


texts_that_fit = Check(
    "texts_that_fit",
    ("memory", "weights", "layers", "kv_heads", "head_dim", "number_bytes", "tokens"),
    [Case(tuple(given), _fits(*given), about) for *given, about in FITS],
    {
        "Half of the cache is missing: there are keys, and there are values.": (
            _plain_fits(lambda m, w: m - w, lambda la, h, d, b, n: la * h * d * b * n)
        ),
        "Every layer keeps keys and values of its own.": (
            _plain_fits(lambda m, w: m - w, lambda la, h, d, b, n: 2 * h * d * b * n)
        ),
        "That counts numbers. How many bytes has each?": (
            _plain_fits(lambda m, w: m - w, lambda la, h, d, b, n: 2 * la * h * d * n)
        ),
        "The weights lie in the same memory.": (
            _plain_fits(lambda m, w: m, lambda la, h, d, b, n: 2 * la * h * d * b * n)
        ),
        "A negative number of texts: when the weights alone do not fit, the answer is 0.": (
            lambda m, w, la, h, d, b, n: (m - w) // (2 * la * h * d * b * n)
        ),
        "Part of a text does not help: round down.": (
            lambda m, w, la, h, d, b, n: max(0, (m - w) / (2 * la * h * d * b * n))
        ),
        "Rounded up: the last of these texts would not fit.": (
            lambda m, w, la, h, d, b, n: max(0, -(-(m - w) // (2 * la * h * d * b * n)))
        ),
    },
    praise="Servers are full of caches: that is why heads share keys, and why caches are paged and shortened.",
    hint="First the bytes of one text: keys and values, all layers, every token. Then divide what the weights leave.",
)

# A loop


class Model(Reader):
    """A reader that is handed out as a fresh copy; `used` is the copy handed out last."""

    def __init__(self, model: TableModel, capacity: int) -> None:
        super().__init__(model, capacity)
        self.used: Reader = self

    def __deepcopy__(self, _: dict[int, Any]) -> Model:
        self.used = Model(self.model, self.cache.capacity)  # type: ignore[arg-type]
        return self.used  # type: ignore[return-value]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model)  # to be read from is what it is for: no change of an argument

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "<model>"


GREEDY = Sampling(temperature=0)


class Loop:
    """What a greedy loop must do: naive decoding's tokens, each token fed once."""

    def __init__(self, model: Model, prompt: list[int], new: int) -> None:
        self.model, self.prompt, self.new = model, prompt, new
        self.tokens: list[int] = autoregressive(
            model.model, prompt, max_new_tokens=new, sampling=GREEDY, stop=Stop()
        ).tokens

    def __call__(self, answer: Any) -> str:
        """What is wrong, "" when nothing is."""
        if not isinstance(answer, (list, tuple)):
            return f"gave {shown(answer)}, expected a list of {self.new} new tokens"
        answer, used = list(answer), self.model.used
        if answer == self.prompt + self.tokens:
            return "gave the prompt too: return the new tokens alone"
        if answer != self.tokens:
            return f"gave {shown(answer)}, expected {shown(self.tokens)}" + self._hole(used)
        if len(used.reads) > self.new:
            return f"wrote the right tokens in {len(used.reads)} forwards, and {self.new} will do"
        least = len(self.prompt) + self.new - 1
        if sum(used.reads) > least:
            return f"wrote the right tokens, but fed {sum(used.reads)} of them, and {least} will do"
        return ""

    def _hole(self, used: Reader) -> str:
        """Where the cache parts from the text, if it does."""
        for j, (one, other) in enumerate(zip(used.slots[: used.held], self.prompt + self.tokens, strict=False)):
            if one != other:
                return f"; slot {j} of the cache holds {one}, the text has {other} there"
        return ""


def _loops() -> list[Case]:
    settings = [  # model, prompt, new tokens, slots beyond the text, about
        (TableModel(5, 40, seed=1), [0], 1, "one new token"),
        (TableModel(5, 40, seed=2), [3, 1], 4, ""),
        (TableModel(5, 40, seed=3), [0, 1, 2, 3], 12, "a longer text"),
        (pair()[0], ids(SENTENCE[:PROMPT]), len(SENTENCE) - PROMPT, "a model that knows one sentence by heart"),
    ]
    cases = []
    for model, prompt, new, about in settings:
        handed = (Model(model, 1000), prompt, new)
        cases.append(Case(handed, Loop(*handed), about))
    return cases


def _mistaken(again: bool = False, first: bool = False, row: int = -1, fresh: bool = False) -> Callable[..., Any]:
    """The loop, with one part exchanged.

    Args:
        again: feed the whole text each time, and never rewind.
        fresh: feed the whole text each time, and rewind first.
        first: begin with the prompt's last token, the others unread.
        row: whose favourite is taken.
    """

    def loop(model: Reader, prompt: list[int], new: int) -> list[int]:
        text, feed = list(prompt), prompt[-1:] if first else list(prompt)
        for _ in range(new):
            if fresh:
                model.rewind(model.held)
            text.append(int(model.read(feed)[row].argmax()))
            feed = list(text) if again or fresh else text[-1:]
        return text[len(prompt) :]

    return loop


greedy_with_cache = Check(
    "greedy_with_cache",
    ("model", "prompt", "new_tokens"),
    _loops(),
    {
        "The whole text was fed again although the cache holds it already: the model now reads it twice.": (
            _mistaken(again=True)
        ),
        "Right, and as slow as without a cache: forget nothing, and feed only what was not read yet.": (
            _mistaken(fresh=True)
        ),
        "The prompt's earlier tokens were never fed, so the model does not know them.": _mistaken(first=True),
        "The next token follows the last token fed, so its row is the last one.": _mistaken(row=0),
    },
    praise="Prefill, then a token a forward: this is naive decoding.",
    hint="What has the model not read yet? First the prompt, then one token. model.held says how many are in sight.",
)
