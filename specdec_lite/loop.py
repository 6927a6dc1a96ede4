"""One round of decoding: draft, verify, accept, correct, rewind.

Naive decoding is the round with nothing drafted, so both run models through the same code and a
comparison is fair. `decoding` has the loop around it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .acceptance import Rule
from .draft import Draft, Drafter, KeepsPaths, draft_size, observed, one_hot_draft
from .models import LanguageModel, prefill
from .randomness import Randomness
from .sampling.distributions import Sampler
from .stopping import Stop
from .trace import Detail, FinishReason, Kind, Round
from .transfer import Outcome, PhaseTimer, Verification, send
from .tree import tree_rule


class Run:
    """The state of one decoding: the rows' tokens, the caches, and why a row is finished."""

    @torch.inference_mode()
    def __init__(
        self,
        target: LanguageModel,
        drafter: Drafter | None,
        prompts: list[list[int]],
        *,
        k: int,
        max_new_tokens: int,
        sampler: Sampler,
        stop: Stop,
        rule: Rule,
        randomness: Randomness,
        detail: Detail,
    ) -> None:
        self.drafter, self.k = drafter, k
        self.token_ids = [list(prompt) for prompt in prompts]
        self.sampler, self.stop, self.rule, self.randomness, self.detail = sampler, stop, rule, randomness, detail
        self.prompt_lengths = [len(prompt) for prompt in prompts]
        self.max_lengths = [length + max_new_tokens for length in self.prompt_lengths]
        self.finish_reasons: list[FinishReason | None] = [None] * len(prompts)
        self.index = 0
        self.last = send([prompt[-1:] for prompt in prompts], target.device)  # [batch, 1], what the target reads next
        capacity = max(self.max_lengths) + draft_size(drafter, k) + 1
        self.cache = target.new_cache(len(prompts), capacity)
        self.session = None if drafter is None else drafter.open(self.token_ids, target, self.cache)
        self.target = observed(target, self.session)
        self.empty_draft = one_hot_draft([[] for _ in prompts], target.vocab_size, target.device)
        prefill(self.target, self.cache, self.token_ids)

    @property
    def unfinished(self) -> bool:
        return None in self.finish_reasons

    def draft_lengths(self) -> list[int]:
        """How far ahead each row may draft: k, less where the budget or the drafter's context would be exceeded.

        The target's context limit was checked earlier: `check_limits` lets no budget reach beyond it.
        """
        if self.session is None:
            return [0] * len(self.token_ids)
        lengths = []
        for text, longest, finished in zip(self.token_ids, self.max_lengths, self.finish_reasons, strict=True):
            most = min(self.k, longest - len(text) - 1, self.session.max_draft_tokens(len(text)))
            lengths.append(0 if finished else max(0, most))
        return lengths

    @torch.inference_mode()
    def round(self) -> list[Round]:
        """One round for every unfinished row: between 1 and k + 1 new tokens each."""
        timer, lengths = PhaseTimer(self.target.device), self.draft_lengths()
        self.randomness.begin_round()

        # 1. Draft: n tokens a row, k or fewer in a chain, each with the distribution it was drawn from.
        draft = self._draft(max(lengths))  # tokens [batch, n], probs [batch, n, vocab]
        drafted = [min(count, draft.size(most)) for count, most in zip(draft.count, lengths, strict=True)]
        rule = tree_rule(self.rule, draft.tree) if draft.is_tree else self.rule
        timer.end("draft")

        # 2. Verify: the target scores the last token and all n drafts in one forward.
        block = torch.cat([self.last, draft.tokens], 1)  # [batch, n + 1]
        if draft.is_tree:
            self.cache.branch(draft.tree.below_token().parents)
        logits = self.target.forward(block, self.cache)  # [batch, n + 1, vocab]
        timer.end("verify")
        # [batch, n + 1, vocab], after the text and after each drafted token
        p_target = self.sampler.probabilities(logits, self.token_ids, draft.tokens, draft.prefixes)

        # 3. Accept: each drafted token passes or not, and the rule says how many are accepted.
        verify = p_target, draft.probs, draft.tokens, self._count(drafted, draft)
        pass_probs = rule.pass_probs(*verify)  # [batch, n]
        accepted, uniform = self.randomness.accept(pass_probs, rule.accepted_length)  # [batch], [batch, n]

        # 4. Correct the token that failed, or take the bonus token after the last one.
        p_next = rule.next_token_probs(*verify, accepted)  # [batch, vocab]
        token = self.randomness.sample(p_next)  # [batch]

        # 5. Bring the verdict to the host; keep what no stop cuts off; rewind the caches to it.
        outcome = Outcome(
            draft.tokens, draft.probs, p_target, pass_probs, uniform, accepted, token, p_next.sum(-1), logits,
            draft.parents,
        )  # fmt: skip
        found = outcome.to_host(self.detail)
        paths = [draft.path(each.accepted) for each in found]
        rounds = [self._keep(row, drafted[row], draft, paths[row], each) for row, each in enumerate(found)]
        self._rewind(block.shape[1], draft, paths, [len(each.kept) if each else 0 for each in rounds])
        self.last = token.unsqueeze(1)  # an unfinished row has kept it
        timer.end("rest")
        self.index += 1
        made = [each for each in rounds if each]
        for each in made:
            each.seconds = timer.seconds()
        return made

    def _draft(self, k: int) -> Draft:
        if k == 0 or self.session is None:
            return self.empty_draft
        return self.session.propose(self.token_ids, k, self.sampler, self.randomness)

    def _count(self, drafted: list[int], draft: Draft) -> Tensor | None:
        """How many tokens of each row were drafted [batch], where a row has padding."""
        return None if min(drafted) == draft.tokens.shape[1] else send(drafted, self.target.device)

    def _keep(self, row: int, drafted: int, draft: Draft, path: list[int], found: Verification) -> Round | None:
        """Commit a row's new tokens to its text: those on the accepted path, and the next. None for a finished row."""
        if self.finish_reasons[row]:
            return None
        text = self.token_ids[row]
        kind: Kind = "sampled" if drafted == 0 else "corrected" if draft.goes_on(path, drafted) else "bonus"
        block = [found.drafted[node] for node in path] + [found.token]
        seen = text[max(self.prompt_lengths[row] - 1, len(text) - self.stop.reach) :]
        kept, reason = self.stop.cut(seen, block, self.max_lengths[row] - len(text), self._decode)
        order, rejected, parents = draft.in_order(path, drafted)
        found = found.select(order)
        made = Round(
            row, self.index, len(text), found.drafted, len(path), found.token, kind, kept, reason, {},
            found.p_target, found.p_draft, found.overlap, found.chance, found.uniform, found.top_target,
            found.top_draft, found.full_target, found.full_draft, parents, rejected,
        )  # fmt: skip
        text += kept
        self.finish_reasons[row] = reason
        return made

    def _rewind(self, held: int, draft: Draft, paths: list[list[int]], kept: list[int]) -> None:
        """Of the `held` new tokens of each row, let the caches keep the first `kept[row]` on its path."""
        if draft.is_tree and isinstance(self.session, KeepsPaths):
            held = self.cache.keep_paths([[0, *(node + 1 for node in path)] for path in paths])
            self.session.keep_paths(paths)
        self.cache.rewind([held - n for n in kept])

    def _decode(self, tokens: list[int]) -> str:
        return self.target.tokenizer.decode(tokens)
