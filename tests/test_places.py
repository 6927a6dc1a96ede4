"""Verdicts by position, counted and expected; the recording that ships; the class of a token."""

from __future__ import annotations

import json

import pytest
import tiny
from test_trace import made as round_made

import specdec_lite as sd
from specdec_lite.pocket import recorded as places
from specdec_lite.theory import exact
from specdec_lite.theory.acceptance_counts import Verdicts, counted, expected
from specdec_lite.theory.formulas import expected_tokens, expected_tokens_without_bonus
from specdec_lite.theory.replay import replay, running
from specdec_lite.training import record_places

CHANCES = [0.9, 0.2, 1.0, 0.5, 0.0, 0.7, 0.8, 1.0, 0.3]


def test_counted_verdicts_are_those_of_the_trace() -> None:
    target, draft = tiny.table_pair(vocab=5, context=60)
    trace = sd.speculative(target, sd.ModelDrafter(draft), [0], k=4, max_new_tokens=48, stop=sd.Stop(), seed=3).trace
    made = counted(trace.rounds)
    assert made.accepted_per_judged == trace.accepted_per_judged
    assert made.accepted_per_drafted == trace.accepted_per_drafted
    assert made.tokens_per_round == trace.tokens_per_round_with_bonus
    assert made.tokens_per_round_without_bonus == trace.tokens_per_round_without_bonus
    assert made.rates == trace.acceptance_by_position()["rate"].tolist()


def test_what_was_drafted_judged_and_accepted_are_three_counts() -> None:
    """Three drafts of which the first fails, three of which the second fails, two that are kept."""
    made = counted([round_made(0, 3), round_made(1, 3), round_made(2, 2)])
    assert (made.drafted, made.judged, made.accepted) == ([3, 3, 2], [3, 2, 0], [2, 1, 0])
    assert (made.tokens, made.rounds, made.bonus) == (6, 3, 1)
    assert (made.accepted_per_drafted, made.accepted_per_judged) == (3 / 8, 3 / 5)


@pytest.mark.parametrize("k", [1, 2, 3, 8, 12])
def test_expected_verdicts_are_those_of_the_replay(k: int) -> None:
    made, other = expected([CHANCES], k), replay(running(CHANCES, k), k)[0]
    assert made.rounds == pytest.approx(other.rounds)
    assert sum(made.judged) == pytest.approx(other.judged)
    assert sum(made.accepted) == pytest.approx(other.accepted)
    assert sum(made.drafted) == pytest.approx(sum(count * rounds for count, rounds in other.drafted.items()))


def test_expected_verdicts_of_one_text_are_those_of_the_real_loop() -> None:
    """Among all paths that write a text, weighted by their probability, position by position."""
    target, draft, prompt = sd.TableModel(2, seed=1), sd.TableModel(2, seed=2), [0]
    every = list(exact.paths(target, sd.ModelDrafter(draft), prompt, k=2, max_new_tokens=4, trace="summary"))
    by_text: dict[tuple[int, ...], list[exact.Path]] = {}
    for path in every:
        by_text.setdefault(path.tokens, []).append(path)
    single = {
        model: exact.target_distribution(model, prompt, max_new_tokens=4) for model in (target, draft)
    }  # probabilities of whole texts

    def prefix(model: sd.TableModel, text: tuple[int, ...]) -> float:
        return sum(p for other, p in single[model].items() if other[: len(text)] == text)

    for text, paths in by_text.items():
        chances = []
        for i in range(4):
            wanted, drafted = (prefix(m, text[: i + 1]) / prefix(m, text[:i]) for m in (target, draft))
            chances.append(min(1.0, drafted / wanted))
        weight = sum(path.probability for path in paths)
        made = expected([chances], 2)
        for name in ("drafted", "judged", "accepted"):
            mean = [0.0, 0.0]
            for path in paths:
                for i, count in enumerate(getattr(counted(path.rounds), name)):
                    mean[i] += path.probability / weight * count
            assert getattr(made, name) == pytest.approx(mean, abs=1e-12), (text, name)
        bonus = sum(path.probability / weight * counted(path.rounds).bonus for path in paths)
        assert made.bonus == pytest.approx(bonus, abs=1e-12)


def test_a_long_even_text_gives_the_closed_forms() -> None:
    made = expected([[0.75] * 4000], 4)
    assert made.accepted_per_judged == pytest.approx(0.75)
    assert made.tokens_per_round == pytest.approx(expected_tokens(0.75, 4), rel=1e-3)
    assert made.tokens_per_round_without_bonus == pytest.approx(expected_tokens_without_bonus(0.75, 4), rel=1e-3)


def test_a_position_never_judged_has_no_rate() -> None:
    assert Verdicts(1, 1, [1, 1], [1, 0], [0, 0], 0).rates[1] != 0
    with pytest.raises(ValueError, match="k must be 1 or more"):
        expected([CHANCES], 0)


# The recording


@pytest.fixture(scope="module")
def shipped() -> dict[float, places.Places]:
    return places.load_places()


def test_the_recording_ships_and_is_whole(shipped: dict[float, places.Places]) -> None:
    assert list(shipped) == sorted(record_places.TEMPERATURES)
    for each in shipped.values():
        assert len(each.texts) == len(record_places.PROMPTS)
        for text in each.texts:
            assert len(text.tokens) == len(text.chance) == len(text.overlap) == record_places.NEW_TOKENS
            assert all(0 <= value <= 1 for value in (*text.chance, *text.overlap))
            assert each.decode(text.prompt)


def test_the_chances_average_to_the_overlap(shipped: dict[float, places.Places]) -> None:
    """Given a place, the token's chance has the overlap as its mean: six standard errors of luck, texts apart."""
    for each in shipped.values():
        gaps = [sum(text.chance) - sum(text.overlap) for text in each.texts]
        spread = sum(gap * gap for gap in gaps) ** 0.5
        assert abs(sum(gaps)) < 6 * spread + 1e-9


def test_a_new_recording_has_the_same_shape() -> None:
    target = tiny.llama()
    models = [sd.TransformersModel(m, tiny.tokenizer()) for m in (target, tiny.noisy(target, 0.2))]
    pair = sd.Pair(*models, tiny.tokenizer())
    made = places.read(json.loads(json.dumps(record_places.record(pair, ["abcd ef"], (0.0, 1.0), new_tokens=12))))
    assert list(made) == [0.0, 1.0]
    assert set(made[0.0].texts[0].chance) <= {0.0, 1.0}
    assert 0 < made[1.0].mean_overlap <= 1
    assert made[1.0].count == 12


def test_the_recorded_places_are_what_both_models_say(shipped: dict[float, places.Places]) -> None:
    """One text read again: the same overlaps, to what rounding leaves."""
    from specdec_lite.acceptance import overlap
    from specdec_lite.sampling.distributions import probabilities

    pair, text = sd.load_pair(), shipped[1.0].texts[1]
    prompts = [pair.tokenizer.encode(prompt) for prompt in record_places.PROMPTS]
    assert [each.prompt for each in shipped[1.0].texts] == prompts, "prompts changed: record the places again"
    whole, begin = [*text.prompt, *text.tokens], len(text.prompt)
    read = (record_places.logits_along(model, whole, begin) for model in (pair.target, pair.draft))
    again = overlap(*(probabilities(each, sd.Sampling()) for each in read)).tolist()
    assert again == pytest.approx(text.overlap, abs=1e-3)


def test_a_missing_recording_says_how_to_make_it(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="record_places"):
        places.load_places(tmp_path / "gone.json")
