"""The real loop's distribution over texts, enumerated, against the target's own, to 1e-12.

Each proof carries its negative control: the same case with a rule that accepts every draft must
come out wrong, or the case would prove nothing.
"""

from dataclasses import dataclass, replace

import pytest
from tiny import llama
from torch import Tensor

from specdec_lite import (
    BlockVerification,
    ModelDrafter,
    PromptLookupDrafter,
    SampleAndMatch,
    Sampling,
    Stop,
    TableModel,
    TokenRejection,
    TypicalAcceptance,
)
from specdec_lite.acceptance import Rule
from specdec_lite.draft import Draft, Drafter, DraftSession, Texts
from specdec_lite.kv_cache import KVCache
from specdec_lite.models import LanguageModel, TransformersModel
from specdec_lite.randomness import Randomness
from specdec_lite.sampling.distributions import Sampler
from specdec_lite.teaching.museum import FirstFailureEnds, SlackRewind
from specdec_lite.theory.exact import (
    expectation,
    largest_difference,
    paths,
    sequence_distribution,
    target_distribution,
    total_variation,
)

PROMPT = [0, 1, 0]  # its end occurred before, so prompt lookup has something to propose
REJECT, MATCH, BLOCK = TokenRejection(), SampleAndMatch(), BlockVerification()
rules = pytest.mark.parametrize("rule", [REJECT, MATCH, BLOCK], ids=["rejection", "match", "block"])
ks = pytest.mark.parametrize("k", [1, 2, 3, 4])
SAMPLINGS = [
    Sampling(temperature=0.7),
    Sampling(temperature=0),
    Sampling(top_k=2),
    Sampling(top_p=0.8),
    Sampling(min_p=0.4),
    Sampling(temperature=1.3, top_k=2, top_p=0.95, min_p=0.1),
]


class Credulous(TokenRejection):
    """Accepts every draft, so the text is the draft's."""

    def accept_prob(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor) -> Tensor:
        return (super().accept_prob(p_target, p_draft, tokens) >= 0).double()


def models(vocab: int, context: int = 16) -> tuple[TableModel, ModelDrafter]:
    return TableModel(vocab, context, seed=1), ModelDrafter(TableModel(vocab, context, seed=2))


def prove(
    target: LanguageModel,
    drafter: Drafter | None,
    *,
    k: int,
    max_new_tokens: int,
    rule: Rule = REJECT,
    sampling: Sampling | None = None,
    stop: Stop | None = None,
    rows: int = 1024,
) -> None:
    """The loop is exact with `rule`, and the comparison would have seen it if it were not."""
    limits = dict(max_new_tokens=max_new_tokens, sampling=sampling, stop=stop)
    truth = target_distribution(target, PROMPT, **limits)
    found = sequence_distribution(target, drafter, PROMPT, k=k, rule=rule, rows=rows, **limits)
    assert sum(truth.values()) == pytest.approx(1, abs=1e-12)
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)
    assert largest_difference(found, truth) < 1e-12
    assert total_variation(found, truth) < 1e-12
    if drafter is not None:
        control = sequence_distribution(target, drafter, PROMPT, k=k, rule=Credulous(), **limits)
        assert largest_difference(control, truth) > 1e-3


@pytest.mark.parametrize(
    ("vocab", "tokens", "k"), [(3, 4, 1), (3, 4, 2), (3, 4, 3), (2, 6, 1), (2, 6, 2), (2, 6, 3), (2, 5, 4)]
)
def test_rejection(vocab: int, tokens: int, k: int) -> None:
    """The budget leaves room for a full draft and its bonus, and for what follows a rejection."""
    prove(*models(vocab), k=k, max_new_tokens=tokens)


@pytest.mark.parametrize(("tokens", "k"), [(5, 1), (5, 2), (4, 3), (5, 4)])
def test_sample_and_match(tokens: int, k: int) -> None:
    """It rejects more, so there are up to ten times as many paths."""
    prove(*models(2), k=k, max_new_tokens=tokens, rule=MATCH)


@pytest.mark.parametrize(("vocab", "tokens", "k"), [(3, 4, 1), (3, 4, 2), (3, 4, 3), (2, 6, 2), (2, 6, 3), (2, 5, 4)])
def test_block_verification(vocab: int, tokens: int, k: int) -> None:
    """Exact, and no longer so when a failed test ends the block (k = 1: there is nothing after it)."""
    target, drafter = models(vocab)
    prove(target, drafter, k=k, max_new_tokens=tokens, rule=BLOCK)
    ended = sequence_distribution(target, drafter, PROMPT, k=k, max_new_tokens=tokens, rule=FirstFailureEnds())
    biased = largest_difference(ended, target_distribution(target, PROMPT, max_new_tokens=tokens)) > 1e-3
    assert biased == (k > 1)


@dataclass(frozen=True)
class Hesitant:
    """Drafts on only after token 1, so that how many are drafted depends on what was."""

    model: TableModel

    def open(self, texts: Texts, target: LanguageModel, cache: KVCache) -> DraftSession:
        session = ModelDrafter(self.model).open(texts, target, cache)
        propose = session.propose

        def hesitant(texts: Texts, k: int, sampler: Sampler, randomness: Randomness) -> Draft:
            draft = propose(texts, k, sampler, randomness)
            count = [(row[:-1] + [0]).index(0) + 1 if row else 0 for row in draft.tokens.tolist()]
            return replace(draft, count=count)

        session.propose = hesitant
        return session


@rules
def test_a_draft_may_end_where_its_own_tokens_say(rule: Rule) -> None:
    """Whether token i is drafted may depend on the tokens before it, under every exact rule."""
    prove(models(2)[0], Hesitant(TableModel(2, 16, seed=2)), k=3, max_new_tokens=4, rule=rule)


def mean_accepted(target: TableModel, drafter: Drafter, k: int, rule: Rule, sampling: Sampling) -> float:
    """Accepted tokens of the first round, over all its paths."""
    every = paths(target, drafter, PROMPT, k=k, max_new_tokens=k + 1, rule=rule, sampling=sampling)
    return expectation(every, lambda path: path.rounds[0].accepted)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_block_verification_never_accepts_fewer(k: int) -> None:
    """Forty pairs, from nearly equal to nearly disjoint; with one drafted token the two rules are the same."""
    gains = []
    for seed in range(40):
        sampling = Sampling(temperature=(0.3, 0.7, 1.0, 2.0)[seed % 4])
        target, drafter = TableModel(2, 16, seed=seed), ModelDrafter(TableModel(2, 16, seed=100 + seed))
        block, token, match = (mean_accepted(target, drafter, k, rule, sampling) for rule in (BLOCK, REJECT, MATCH))
        assert block >= token - 1e-12 and token >= match - 1e-12
        gains.append(block - token)
    assert (max(gains) > 0.01) == (k > 1)
    assert k > 1 or max(map(abs, gains)) < 1e-12


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0)], ids=["sampled", "greedy"])
def test_typical_acceptance_is_off_by_a_number(sampling: Sampling) -> None:
    """Lossy where something is drawn, whatever its threshold; greedy decoding where nothing is."""
    target, drafter = models(3)
    truth = target_distribution(target, PROMPT, sampling=sampling)
    strict, medusa, lax = (
        total_variation(sequence_distribution(target, drafter, PROMPT, k=2, sampling=sampling, rule=rule), truth)
        for rule in (TypicalAcceptance(1.0, 1.0), TypicalAcceptance(), TypicalAcceptance(0.0, 0.0))
    )
    if sampling.temperature == 0:
        assert max(strict, medusa, lax) < 1e-12
    else:
        assert min(strict, medusa, lax) > 0.01 and strict < lax


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
@pytest.mark.parametrize("drafter", [models(3)[1], PromptLookupDrafter()], ids=["model", "lookup"])
@rules
def test_sampling(sampling: Sampling, drafter: Drafter, rule: Rule) -> None:
    prove(models(3)[0], drafter, k=2, max_new_tokens=3, rule=rule, sampling=sampling)


@ks
@rules
def test_prompt_lookup(k: int, rule: Rule) -> None:
    """Rows propose 0 to k tokens each, with one-hot p_draft."""
    prove(models(2)[0], PromptLookupDrafter(longest=2), k=k, max_new_tokens=6, rule=rule)


@pytest.mark.parametrize("sampling", [None, *SAMPLINGS], ids=str)
@pytest.mark.parametrize("stop", [Stop(), Stop([2, 0])], ids=["budget", "stop"])
def test_naive(sampling: Sampling | None, stop: Stop) -> None:
    target = models(3)[0]
    prove(target, None, k=0, max_new_tokens=4, sampling=sampling, stop=stop)
    found = sequence_distribution(target, None, PROMPT, sampling=sampling, stop=stop)
    other = target_distribution(TableModel(3, seed=2), PROMPT, sampling=sampling, stop=stop)
    assert largest_difference(found, other) > 1e-3  # the control: another target is told apart


@ks
@pytest.mark.parametrize("stop", [Stop([1]), Stop([2, 0])], ids=["one id", "two ids"])
def test_stop_tokens(stop: Stop, k: int) -> None:
    """The prompt's own stop tokens do not count; one inside an accepted block cuts it."""
    target, drafter = models(3)
    prove(target, drafter, k=k, max_new_tokens=4, stop=stop)
    every = list(paths(target, drafter, PROMPT, k=k, max_new_tokens=4, stop=stop))
    last = [path.rounds[-1] for path in every]
    assert any(each.ended == "stop" and len(each.kept) <= each.accepted for each in last)
    assert {each.ended for each in last} == {"stop", "length"}
    assert all(token not in stop.token_ids for path in every for token in path.tokens[:-1])
    ignored = target_distribution(target, PROMPT, max_new_tokens=4, stop=Stop())
    found = sequence_distribution(target, drafter, PROMPT, k=k, stop=stop)
    assert largest_difference(found, ignored) > 1e-3  # the control: a stop that is ignored is seen


@pytest.mark.parametrize("budget", [1, 2, 3, 4])
@rules
def test_budget(budget: int, rule: Rule) -> None:
    """A draft of 4 near the end of the budget, and of the target's context."""
    target, drafter = models(2, context=len(PROMPT) + budget)
    if budget == 1:  # nothing can be drafted, so no rule can fail
        assert {len(p.tokens) for p in paths(target, drafter, PROMPT, k=4, max_new_tokens=1, rule=Credulous())} == {1}
        return
    prove(target, drafter, k=4, max_new_tokens=budget, rule=rule)
    found = sequence_distribution(target, drafter, PROMPT, k=4, max_new_tokens=budget, rule=rule)
    assert {len(text) for text in found} == {budget}


@rules
def test_a_draft_whose_context_ends_first(rule: Rule) -> None:
    """It proposes fewer and fewer, then nothing: rows of a batch differ in what they may draft."""
    target, drafter = TableModel(2, seed=1), ModelDrafter(TableModel(2, context=len(PROMPT) + 2, seed=2))
    prove(target, drafter, k=3, max_new_tokens=5, rule=rule)


@pytest.mark.parametrize("rows", [1, 7])
@rules
def test_rows_of_a_batch_do_not_matter(rows: int, rule: Rule) -> None:
    prove(*models(2), k=2, max_new_tokens=4, rule=rule, rows=rows)


def test_rows_that_influence_each_other_are_refused() -> None:
    """The control for the batch: a faulty draft cache makes a row depend on its neighbours."""
    drafter = ModelDrafter(SlackRewind(TableModel(3, seed=2)))
    with pytest.raises(RuntimeError, match="rows=1"):
        sequence_distribution(TableModel(3, seed=1), drafter, PROMPT, k=2)


def llamas() -> tuple[TransformersModel, ModelDrafter]:
    """Two random Llamas of three tokens, in float64, that share nothing."""
    target, draft = (TransformersModel(llama(seed, vocab=3, layers=layers)) for seed, layers in ((0, 2), (1, 1)))
    return target, ModelDrafter(draft)


@rules
def test_transformers_models(rule: Rule) -> None:
    """The same proof with attention, rotary positions and grouped heads under the loop."""
    prove(*llamas(), k=2, max_new_tokens=3, rule=rule)


def test_a_rewind_too_short_is_seen_through_attention() -> None:
    """The control for the cache: the same pair with one stale token left after a rejection."""
    target, drafter = llamas()
    found = sequence_distribution(SlackRewind(target), drafter, PROMPT, k=2, max_new_tokens=3, rows=1)
    assert largest_difference(found, target_distribution(target, PROMPT, max_new_tokens=3)) > 1e-3


def test_distances() -> None:
    one, other = {(0,): 0.5, (1,): 0.5}, {(0,): 0.25, (2,): 0.75}
    assert total_variation(one, other) == 0.75 and largest_difference(one, other) == 0.75
    assert total_variation(one, one) == 0


def test_a_better_draft_needs_fewer_rounds() -> None:
    target, drafter = models(2)
    rounds = {
        name: expectation(paths(target, each, PROMPT, k=3, max_new_tokens=4), lambda path: len(path.rounds))
        for name, each in {"naive": None, "draft": drafter, "twin": ModelDrafter(target)}.items()
    }
    assert rounds["naive"] == pytest.approx(4) and rounds["twin"] == pytest.approx(1)
    assert 1 < rounds["draft"] < 4
