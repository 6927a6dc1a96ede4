"""Trees of drafts: their geometry, exactness by enumeration of the real loop, and the chain as the narrowest one."""

import copy

import pytest
import torch
from tiny import PROMPT, pair, table_pair
from torch import Tensor

import specdec_lite as sd
from specdec_lite.acceptance import PerTokenRule
from specdec_lite.kv_cache import KVCache
from specdec_lite.theory.exact import (
    expectation,
    largest_difference,
    paths,
    sequence_distribution,
    target_distribution,
)
from specdec_lite.tree import Tree, TreeVerification, chain

TEXT = [0, 1, 0]
SAMPLINGS = [
    sd.Sampling(),
    sd.Sampling(temperature=0),
    sd.Sampling(top_k=2),
    sd.Sampling(temperature=0.6, top_p=0.8),
]
SHAPES = [((2,), 1), ((2,), 2), ((2, 2), 2), ((1, 2), 2), ((3,), 1), ((2,), 3)]


def tables(vocab: int = 3) -> tuple[sd.TableModel, sd.TableModel]:
    return table_pair(vocab=vocab, context=12, noise=1.0)


# Geometry


def test_widths_make_a_tree_from_the_root_down() -> None:
    tree = Tree.of_widths((3, 2, 1))
    assert tree.parents == (-1, -1, -1, 0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8)
    assert tree.depths == [1] * 3 + [2] * 6 + [3] * 6
    assert tree.paths[12] == [1, 6, 12]
    assert [tree.size(depth) for depth in range(4)] == [0, 3, 9, 15]
    assert tree.by_rank == [[0, 3, 5, 7, *range(9, 15)], [1, 4, 6, 8], [2]]
    assert Tree.of_widths((1, 1, 1)) == chain(3)


def walk(tree: Tree, passed: list[bool]) -> int:
    """The last accepted node plus 1, one sibling after the other."""
    node = -1
    while chosen := [child for child in tree.children(node, len(tree)) if passed[child]][:1]:
        (node,) = chosen
    return node + 1


@pytest.mark.parametrize("widths", [(2, 2), (3,), (1, 3), (1, 1, 1), (3, 1, 2)], ids=str)
def test_the_accepted_node_is_found_by_walking(widths: tuple[int, ...]) -> None:
    tree = Tree.of_widths(widths)
    generator = torch.Generator().manual_seed(0)
    passed = torch.rand(300, len(tree), generator=generator) < 0.6
    found = TreeVerification(sd.TokenRejection(), tree).accepted_length(passed)
    assert found.tolist() == [walk(tree, row) for row in passed.tolist()]


def test_a_chain_is_verified_as_the_rule_alone_does() -> None:
    generator = torch.Generator().manual_seed(0)
    p_target, p_draft = (torch.rand(6, n, 5, generator=generator, dtype=torch.float64) for n in (4, 3))
    p_target, p_draft = (each / each.sum(-1, keepdim=True) for each in (p_target, p_draft))
    tokens, count = torch.randint(5, (6, 3), generator=generator), torch.tensor([3, 2, 1, 0, 3, 3])
    for rule in (sd.TokenRejection(), sd.SampleAndMatch()):
        verify = TreeVerification(rule, chain(3))
        torch.testing.assert_close(
            verify.pass_probs(p_target, p_draft, tokens, count), rule.pass_probs(p_target, p_draft, tokens, count)
        )
        for accepted in range(4):
            at = torch.full((6,), accepted).minimum(count)
            torch.testing.assert_close(
                verify.next_token_probs(p_target, p_draft, tokens, count, at),
                rule.next_token_probs(p_target, p_draft, tokens, count, at),
            )


# Exactness


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
@pytest.mark.parametrize(("widths", "k"), SHAPES, ids=str)
def test_a_tree_keeps_the_distribution(widths: tuple[int, ...], k: int, sampling: sd.Sampling) -> None:
    target, draft = tables()
    how = dict(max_new_tokens=3, sampling=sampling, stop=sd.Stop())
    drafter = sd.TreeDrafter(sd.ModelDrafter(draft), widths)
    wanted = target_distribution(target, TEXT, **how)
    assert largest_difference(sequence_distribution(target, drafter, TEXT, k=k, **how), wanted) < 1e-12


@pytest.mark.parametrize("rule", [sd.TokenRejection(), sd.SampleAndMatch()], ids=["rejection", "match"])
def test_it_does_with_stops_and_processors(rule: PerTokenRule) -> None:
    def no_repeats(ids: Tensor, scores: Tensor) -> Tensor:
        return scores.scatter_add(1, ids[:, -1:], torch.full_like(scores[:, :1], -1.0))

    target, draft = tables()
    how = dict(max_new_tokens=3, stop=sd.Stop([2]), processors=[no_repeats])
    drafter = sd.TreeDrafter(sd.ModelDrafter(draft), (2,))
    made = sequence_distribution(target, drafter, TEXT, k=2, rule=rule, **how)
    assert largest_difference(made, target_distribution(target, TEXT, **how)) < 1e-12


class AgainstTheTargetItself(TreeVerification):
    """BUG: every sibling is tested against p_target, as if no elder one had been rejected."""

    def _pass_and_left(self, p_target: Tensor, p_draft: Tensor, tokens: Tensor, count: Tensor | None) -> tuple:
        passes, left = super()._pass_and_left(p_target, p_draft, tokens, count)
        at = [parent + 1 for parent in self.tree.parents]
        return self.rule.accept_prob(p_target[:, at], p_draft, tokens) * (passes > 0), left


class SeesSiblings(KVCache):
    """BUG: a node sees all slots before it, those of its siblings too."""

    def _off_path(self, tree: Tree) -> Tensor:
        return self._slots[: self.visible] > self.places.unsqueeze(-1)


class StaysAtItsSlot(KVCache):
    """BUG: a node's position is its slot and not its depth."""

    def assign_slots(self, n: int) -> None:
        super().assign_slots(n)
        self.positions = self.places

    def slot_positions(self) -> Tensor:
        return self._slots[: self.visible]


class KeepsTheFirstNodes(KVCache):
    """BUG: the cache keeps as many nodes as were accepted, but the first ones."""

    def keep_paths(self, paths: list[list[int]]) -> int:
        return super().keep_paths([list(range(len(path))) for path in paths])


def test_siblings_tested_against_the_target_itself_are_biased(monkeypatch: pytest.MonkeyPatch) -> None:
    target, draft = tables()
    drafter, how = sd.TreeDrafter(sd.ModelDrafter(draft), (2,)), dict(max_new_tokens=3, stop=sd.Stop())
    monkeypatch.setattr("specdec_lite.tree.TreeVerification", AgainstTheTargetItself)
    made = sequence_distribution(target, drafter, TEXT, k=2, **how)
    assert largest_difference(made, target_distribution(target, TEXT, **how)) > 1e-5


@pytest.mark.parametrize("cache", [SeesSiblings, StaysAtItsSlot, KeepsTheFirstNodes])
def test_a_cache_that_mistakes_the_tree_is_found(cache: type[KVCache], monkeypatch: pytest.MonkeyPatch) -> None:
    target, draft = tables()
    drafter, how = sd.TreeDrafter(sd.ModelDrafter(draft), (2,)), dict(max_new_tokens=3, stop=sd.Stop())
    wanted = target_distribution(target, TEXT, **how)
    monkeypatch.setattr(target, "new_cache", cache)
    assert largest_difference(sequence_distribution(target, drafter, TEXT, k=2, rows=1, **how), wanted) > 1e-5


# Real models


def greedy_logits_of_the_text(model: sd.TransformersModel, text: list[int]) -> Tensor:
    return model.module(torch.tensor([text]), use_cache=False).logits[0]


@pytest.mark.parametrize("engine", ["eager", "lean"])
@pytest.mark.parametrize("widths", [(3, 2), (2, 2, 2), (1, 4)], ids=str)
def test_greedy_text_is_the_naive_one(widths: tuple[int, ...], engine: str) -> None:
    target, draft = (sd.TransformersModel(each.module, engine=engine) for each in pair(0.3))
    drafter = sd.TreeDrafter(sd.ModelDrafter(draft), widths)
    how = dict(sampling=sd.Sampling(temperature=0), max_new_tokens=40, stop=sd.Stop())
    prompts = [PROMPT, PROMPT[:2], PROMPT + PROMPT]
    naive = sd.autoregressive(target, prompts, **how)
    made = sd.speculative(target, drafter, prompts, k=4, **how)
    assert made.tokens == naive.tokens
    assert len(made.trace.rounds) < len(
        sd.speculative(target, sd.ModelDrafter(draft), prompts, k=4, **how).trace.rounds
    )


def test_the_caches_hold_the_text_after_every_round() -> None:
    """What both caches keep are the keys of the accepted path, at its positions: as of an uncached forward."""
    from specdec_lite.decoding import start

    target, draft = pair(0.3)
    drafter = sd.TreeDrafter(sd.ModelDrafter(draft), (3, 2))
    run = start(target, drafter, [PROMPT, PROMPT[1:]], k=3, max_new_tokens=30, stop=sd.Stop(), seed=3)
    accepted = 0
    while run.unfinished:
        accepted += sum(each.accepted for each in run.round())
        for model, cache in ((target, run.cache), (draft, run.session.cache)):
            assert cache.lengths == cache.length.tolist()
            for row, text in enumerate(run.token_ids):
                if run.finish_reasons[row]:
                    continue
                n = cache.lengths[row]
                fresh = model.new_cache(1, 60)
                model.forward(torch.tensor([text[:n]]), fresh)
                for layer, kept in cache.layers.items():
                    for mine, truth in zip(kept, fresh.layers[layer], strict=True):
                        torch.testing.assert_close(mine[row, :, :n], truth[0, :, :n], rtol=0, atol=1e-12)
    assert accepted > 5


@pytest.mark.parametrize("name", ["Llama", "Mistral", "Gemma2", "GPT2", "Falcon", "DeepseekV3", "GptOss", "OPT"])
@pytest.mark.parametrize("engine", ["eager", "auto"])
def test_logits_of_every_node_are_those_of_its_path(name: str, engine: str) -> None:
    from architectures import IN_FLOAT32, build

    model, tree = sd.TransformersModel(build(name), engine=engine), Tree.of_widths((2, 3, 1))
    tokens = [(7 * i + 3) % 37 for i in range(len(tree))]
    with torch.inference_mode():
        cache = model.new_cache(1, 60)
        model.forward(torch.tensor([PROMPT[:-1]]), cache)
        cache.branch(tree.below_token().parents)
        got = model.forward(torch.tensor([PROMPT[-1:] + tokens]), cache)[0]
        for node, path in enumerate(tree.paths):
            text = PROMPT + [tokens[i] for i in path]
            truth = model.module(torch.tensor([text]), use_cache=False).logits[0, -1]
            torch.testing.assert_close(got[node + 1], truth, rtol=0, atol=1e-5 if name in IN_FLOAT32 else 1e-9)


@pytest.mark.gpu
@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_a_gpu_drafts_the_trees_of_a_cpu(engine: str, temperature: float) -> None:
    how = dict(k=3, sampling=sd.Sampling(temperature=temperature), max_new_tokens=20, seed=5, stop=sd.Stop())
    made = []
    for device in ("cpu", "cuda"):
        models = [copy.deepcopy(each.module).to(device) for each in pair(0.3)]
        target, draft = (sd.TransformersModel(each, engine="eager" if device == "cpu" else engine) for each in models)
        drafters = sd.TreeDrafter(sd.ModelDrafter(draft), (3, 2)), sd.EarlyExitDrafter(1)
        made.append([sd.speculative(target, each, [PROMPT, PROMPT[:2]], **how).tokens for each in drafters])
    assert made[0] == made[1]


# The chain as the narrowest tree, and what trees are for


@pytest.mark.parametrize("temperature", [0, 1])
def test_width_one_is_the_chain_token_for_token(temperature: float) -> None:
    target, draft = pair(0.3)
    how = dict(k=4, sampling=sd.Sampling(temperature=temperature), max_new_tokens=30, seed=5, stop=sd.Stop())
    made = sd.speculative(target, sd.TreeDrafter(sd.ModelDrafter(draft), (1, 1)), PROMPT, **how)
    plain = sd.speculative(target, sd.ModelDrafter(draft), PROMPT, **how)
    assert made.tokens == plain.tokens
    for mine, theirs in zip(made.trace.rounds, plain.trace.rounds, strict=True):
        mine.seconds = theirs.seconds = {}
        assert mine == theirs and mine.parents is None


def test_more_siblings_make_longer_rounds() -> None:
    """Expected tokens of the first round, enumerated: each sibling adds some."""
    target, draft = tables(4)
    lengths = []
    for widths in ((1,), (2,), (3,)):
        drafter = sd.TreeDrafter(sd.ModelDrafter(draft), widths)
        every = paths(target, drafter, TEXT, k=1, max_new_tokens=2, stop=sd.Stop())
        lengths.append(expectation(every, lambda path: path.rounds[0].accepted))
    assert lengths[0] < lengths[1] - 0.01 < lengths[2] - 0.02


def test_siblings_that_ran_out_are_not_accepted() -> None:
    """A distribution of two tokens has no third sibling."""
    target, draft = tables(4)
    drafter, how = sd.TreeDrafter(sd.ModelDrafter(draft), (3,)), dict(max_new_tokens=3, sampling=sd.Sampling(top_k=2))
    made = sequence_distribution(target, drafter, TEXT, k=1, **how)
    assert largest_difference(made, target_distribution(target, TEXT, **how)) < 1e-12


# What is told


def test_a_trace_tells_the_path_first() -> None:
    target, draft = pair(0.1)
    drafter = sd.TreeDrafter(sd.ModelDrafter(draft), (3, 2))
    made = sd.speculative(target, drafter, PROMPT, k=3, max_new_tokens=60, seed=1, stop=sd.Stop(), trace="full")
    kinds = set()
    for each in made.trace.rounds:
        if each.kind == "sampled":
            continue
        kinds.add(each.kind)
        assert each.kept == (each.drafted[: each.accepted] + [each.token])[: len(each.kept)]
        assert all(parent == i - 1 for i, parent in enumerate(each.parents[: each.accepted]))
        tested = [u < chance for u, chance in zip(each.uniform, each.chance, strict=True)][: each.judged]
        assert tested == [True] * each.accepted + [False] * (each.judged - each.accepted)
        for i, (token, parent) in enumerate(zip(each.drafted, each.parents, strict=True)):
            assert each.p_target[i] == each.full_target[parent + 1][token]
            assert each.p_draft[i] == each.full_draft[i][token] > 0
    assert kinds == {"corrected", "bonus"}
    frame = made.trace.to_frame()
    kept = frame[frame.kept.astype(bool)].sort_values("position")
    assert kept.token.tolist() == made.tokens and kept.position.tolist() == list(range(5, 65))
    assert made.trace.acceptance_by_position().position.tolist() == [1, 2, 3]
    assert sd.Trace.from_json(made.trace.to_json()) == made.trace


# Refusals


def test_what_cannot_work_is_refused_before_any_work() -> None:
    target, draft = pair(0.3)
    with pytest.raises(TypeError, match="needs a ModelDrafter"):
        sd.TreeDrafter(sd.PromptLookupDrafter())
    for widths in ((), (0,), (2, -1), (1.5,)):
        with pytest.raises(ValueError, match="widths must be"):
            sd.TreeDrafter(sd.ModelDrafter(draft), widths)
    with pytest.raises(ValueError, match="tree of 84 tokens"):
        sd.speculative(target, sd.TreeDrafter(sd.ModelDrafter(draft), (4, 4, 4)), PROMPT, k=3)
    with pytest.raises(ValueError, match="BlockVerification verifies a chain"):
        sd.speculative(target, sd.TreeDrafter(sd.ModelDrafter(draft)), PROMPT, rule=sd.BlockVerification())
    with pytest.raises(TypeError, match="chooses a length"):
        sd.AdaptiveDrafter(sd.TreeDrafter(sd.ModelDrafter(draft)), lambda past: 2)
