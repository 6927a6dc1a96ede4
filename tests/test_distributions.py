"""Logits become the distribution that transformers would sample, in float64."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from specdec_lite import Sampling
from specdec_lite.randomness import SeededStreams
from specdec_lite.sampling.distributions import Sampler, probabilities
from specdec_lite.sampling.processors import Processors

f64 = partial(torch.tensor, dtype=torch.float64)

SETTINGS = [
    dict(temperature=1.0),
    dict(temperature=0.7),
    dict(temperature=2.5, top_k=7),
    dict(top_k=1),
    dict(top_k=500),
    dict(top_p=0.9),
    dict(top_p=0.05),
    dict(top_p=1e-9),
    dict(min_p=0.1),
    dict(min_p=1.0),
    dict(temperature=0.6, top_k=20, top_p=0.8),
    dict(temperature=1.3, top_k=20, top_p=0.95, min_p=0.05),
]


def warped(logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> Tensor:
    """What transformers samples from: its own warpers in its own order."""
    from transformers.generation import logits_process as hf

    warpers = [hf.TemperatureLogitsWarper(temperature)] if temperature != 1 else []
    warpers += [hf.TopKLogitsWarper(top_k)] if top_k else []
    warpers += [hf.TopPLogitsWarper(top_p)] if top_p < 1 else []
    warpers += [hf.MinPLogitsWarper(min_p)] if min_p else []
    for warper in warpers:
        logits = warper(None, logits)
    return logits.softmax(-1)


def some_logits(ties: bool) -> Tensor:
    logits = 3 * torch.randn(80, 50, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return logits.round() if ties else logits


@pytest.mark.parametrize("kwargs", SETTINGS, ids=str)
def test_it_is_the_distribution_of_transformers_warpers(kwargs: dict) -> None:
    logits = some_logits(ties=False)
    ours, theirs = probabilities(logits, Sampling(**kwargs)), warped(logits, **kwargs)
    assert torch.equal(ours > 0, theirs > 0)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-15)


@pytest.mark.parametrize("kwargs", SETTINGS, ids=str)
def test_with_ties_the_same_probabilities_are_kept(kwargs: dict) -> None:
    """Which of several tied tokens a nucleus ends with is a matter of sorting; how many it keeps is not."""
    logits = some_logits(ties=True)
    ours, theirs = probabilities(logits, Sampling(**kwargs)), warped(logits, **kwargs)
    torch.testing.assert_close(ours.sort(-1).values, theirs.sort(-1).values, rtol=0, atol=1e-15)
    if kwargs.get("top_p", 1.0) == 1:
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-15)


def test_another_order_of_the_warpers_would_show() -> None:
    logits = some_logits(ties=False)
    nucleus_first = warped(warped(logits, top_p=0.9).log(), temperature=2.0)
    assert (nucleus_first - probabilities(logits, Sampling(temperature=2.0, top_p=0.9))).abs().max() > 0.01


def test_top_k_keeps_what_ties_with_the_last_one() -> None:
    probs = probabilities(torch.tensor([[3.0, 2.0, 2.0, 1.0]]), Sampling(top_k=2))
    assert (probs > 0).tolist() == [[True, True, True, False]]


def test_temperature_zero_is_one_hot_at_the_first_of_the_largest() -> None:
    logits = torch.tensor([[1.0, 5.0, 5.0, 2.0], [-torch.inf, -3.0, -torch.inf, -4.0]])
    assert probabilities(logits, Sampling(temperature=0)).tolist() == [[0, 1, 0, 0], [0, 1, 0, 0]]
    everything = Sampling(temperature=0, top_k=2, top_p=0.5, min_p=0.5)
    assert probabilities(logits, everything).tolist() == [[0, 1, 0, 0], [0, 1, 0, 0]]


def test_temperatures_at_the_ends_of_the_range_stay_numbers() -> None:
    logits = torch.tensor([[700.0, -700.0, 699.0]])
    assert probabilities(logits, Sampling(temperature=1e-310)).tolist() == [[1, 0, 0]]
    torch.testing.assert_close(probabilities(logits, Sampling(temperature=1e300)), torch.full((1, 3), 1 / 3).double())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_arithmetic_is_float64_whatever_the_logits_are(dtype: torch.dtype) -> None:
    logits = some_logits(ties=False).to(dtype)
    sampling = Sampling(temperature=0.8, top_p=0.9)
    got = probabilities(logits, sampling)
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, probabilities(logits.double(), sampling), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(temperature=0), Sampling(temperature=0.5), Sampling(top_k=3), Sampling(top_p=0.6),
     Sampling(min_p=0.3), Sampling(temperature=0.5, top_k=3, top_p=0.6, min_p=0.3)],
    ids=str,
)  # fmt: skip
def test_the_logits_stay_as_they_were(sampling: Sampling, dtype: torch.dtype) -> None:
    """A model's own are float64 now and then, and then nothing is copied on the way."""
    logits = some_logits(ties=False).to(dtype)
    before = logits.clone()
    probabilities(logits, sampling)
    assert torch.equal(logits, before)


def test_leading_dimensions_are_kept() -> None:
    logits = some_logits(ties=False).view(4, 20, 50)
    for kwargs in SETTINGS:
        whole = probabilities(logits, Sampling(**kwargs))
        assert whole.shape == logits.shape
        torch.testing.assert_close(whole[2, 7], probabilities(logits[2, 7], Sampling(**kwargs)), rtol=0, atol=1e-16)


numbers = st.lists(st.floats(-50, 50), min_size=1, max_size=12)


@given(numbers, st.floats(0, 5), st.integers(0, 14), st.floats(0.001, 1), st.floats(0, 1))
def test_any_setting_gives_a_distribution(row: list[float], temperature: float, k: int, p: float, m: float) -> None:
    probs = probabilities(f64([row]), Sampling(temperature, k, p, m))
    assert (probs >= 0).all()
    assert probs.sum().item() == pytest.approx(1, abs=1e-12)
    assert row[probs[0].argmax()] == max(row)  # one of the most probable tokens always stays


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        (dict(temperature=-0.1), "temperature.*-0.1"),
        (dict(temperature=float("nan")), "temperature.*nan"),
        (dict(temperature=float("inf")), "temperature.*inf"),
        (dict(top_k=-1), "top_k.*-1"),
        (dict(top_k=2.0), r"top_k.*2\.0"),
        (dict(top_k=2.5), r"top_k.*2\.5"),
        (dict(top_p=0.0), "top_p"),
        (dict(top_p=1.01), r"top_p.*1\.01"),
        (dict(min_p=-0.01), "min_p"),
        (dict(min_p=1.5), r"min_p.*1\.5"),
    ],
)
def test_values_outside_their_range_are_refused(kwargs: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Sampling(**kwargs)


def test_a_drawn_token_comes_with_the_distribution_it_was_drawn_from() -> None:
    logits = some_logits(ties=False)
    sampling = Sampling(temperature=0.8, top_k=5)
    streams = SeededStreams(range(80), k=1)
    streams.begin_round()
    none = torch.zeros(80, 0, dtype=torch.long)
    tokens, probs = Sampler(sampling, Processors()).draw(logits.unsqueeze(1), [[]] * 80, none, streams)
    assert torch.equal(probs[:, 0], probabilities(logits, sampling))
    assert (probs[:, 0].gather(1, tokens) > 0).all()
    assert len(set(tokens.flatten().tolist())) > 10
