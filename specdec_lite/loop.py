"""One round of decoding: draft, verify, accept, correct, rewind.

Naive decoding is the round with nothing drafted, so both run models through the same code and a
comparison is fair. `decoding` has the loop around it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .acceptance import Rule
from .draft import Draft, Drafter, certain
from .models import LanguageModel, prefill
from .randomness import Randomness
from .sampling.distributions import Sampler
from .stopping import Stop
from .trace import Detail, Round
from .transfer import Outcome, Stopwatch, send


class Run:
    """The state of one decoding: texts, caches and who is still going."""

    @torch.inference_mode()
    def __init__(
        self,
        target: LanguageModel,
        drafter: Drafter | None,
        texts: list[list[int]],
        *,
        k: int,
        max_new_tokens: int,
        sampler: Sampler,
        stop: Stop,
        rule: Rule,
        randomness: Randomness,
        detail: Detail,
    ) -> None:
        self.target, self.texts, self.k = target, [list(text) for text in texts], k
        self.sampler, self.stop, self.rule, self.randomness, self.detail = sampler, stop, rule, randomness, detail
        self.starts = [len(text) for text in texts]
        self.limits = [len(text) + max_new_tokens for text in texts]
        self.ended: list[str | None] = [None] * len(texts)
        self.index = 0
        self.last = send([text[-1:] for text in texts], target.device)  # [batch, 1], what the target reads next
        capacity = max(self.limits) + k + 1
        self.cache = target.new_cache(len(texts), capacity)
        self.session = drafter and drafter.open(self.texts, capacity, target.vocab_size, target.device)
        self.nothing = certain([[] for _ in texts], target.vocab_size, target.device)
        prefill(target, self.cache, self.texts)

    @property
    def going(self) -> bool:
        return None in self.ended

    def allowed(self) -> list[int]:
        """How many tokens each row may draft: k, less where the budget or the drafter's context would be passed.

        The target's context needs no look: `check_limits` lets no budget reach beyond it.
        """
        if self.session is None:
            return [0] * len(self.texts)
        rows = []
        for text, limit, ended in zip(self.texts, self.limits, self.ended, strict=True):
            room = min(self.k, limit - len(text) - 1, self.session.room(len(text)))
            rows.append(0 if ended else max(0, room))
        return rows

    @torch.inference_mode()
    def round(self) -> list[Round]:
        """One round for every row that still goes: between 1 and k + 1 new tokens each."""
        clock, allowed = Stopwatch(self.target.device), self.allowed()
        self.randomness.begin_round()

        # 1. Draft: up to k tokens a row, each with the distribution it was drawn from.
        draft = self._draft(max(allowed))  # tokens [batch, k], probs [batch, k, vocab]
        drafted = [min(count, most) for count, most in zip(draft.count, allowed, strict=True)]
        clock.lap("draft")

        # 2. Verify: the target scores the last token and all k drafts in one forward.
        block = torch.cat([self.last, draft.tokens], 1)  # [batch, k + 1]
        logits = self.target.forward(block, self.cache)  # [batch, k + 1, vocab]
        clock.lap("verify")
        p_target = self.sampler.probabilities(logits, self.texts, draft.tokens)  # [batch, k + 1, vocab]

        # 3. Accept: each drafted token passes or not, and the rule says how many are accepted.
        verify = p_target, draft.probs, draft.tokens, self._count(drafted, draft)
        pass_probs = self.rule.pass_probs(*verify)  # [batch, k]
        accepted, uniform = self.randomness.accept(pass_probs, self.rule.accepted_length)  # [batch], [batch, k]

        # 4. Correct the token that failed, or take the bonus token after the last one.
        p_next = self.rule.next_token_probs(*verify, accepted)  # [batch, vocab]
        token = self.randomness.sample(p_next)  # [batch]

        # 5. Bring the verdict to the host; keep what no stop cuts off; rewind the cache to it.
        outcome = Outcome(
            draft.tokens, draft.probs, p_target, pass_probs, uniform, accepted, token, p_next.sum(-1), logits
        )
        rounds = [self._keep(row, drafted[row], fields) for row, fields in enumerate(outcome.to_host(self.detail))]
        self.cache.rewind([block.shape[1] - (len(each.kept) if each else 0) for each in rounds])
        self.last = token.unsqueeze(1)  # a row that goes on has kept it
        clock.lap("rest")
        self.index += 1
        alive = [each for each in rounds if each]
        for each in alive:
            each.seconds = clock.seconds()
        return alive

    def _draft(self, k: int) -> Draft:
        if k == 0 or self.session is None:
            return self.nothing
        return self.session.propose(self.texts, k, self.sampler, self.randomness)

    def _count(self, drafted: list[int], draft: Draft) -> Tensor | None:
        """How many tokens of each row were drafted [batch], where a row has padding."""
        return None if min(drafted) == draft.tokens.shape[1] else send(drafted, self.target.device)

    def _keep(self, row: int, drafted: int, fields: dict[str, Any]) -> Round | None:
        """Commit a row's new tokens to its text. None when the row had ended before."""
        if self.ended[row]:
            return None
        text, accepted = self.texts[row], fields["accepted"]
        for name in ("drafted", "p_target", "p_draft", "overlap", "chance", "uniform", "top_draft", "full_draft"):
            if name in fields:
                fields[name] = fields[name][:drafted]
        for name in ("top_target", "full_target"):
            if name in fields:
                fields[name] = fields[name][: drafted + 1]
        block = fields["drafted"][:accepted] + [fields["token"]]
        seen = text[max(self.starts[row] - 1, len(text) - self.stop.reach) :]
        budget = self.limits[row] - len(text)
        kept, ended = self.stop.cut(seen, block, budget, self._decode)
        kind = "sampled" if drafted == 0 else "bonus" if accepted == drafted else "corrected"
        made = Round(row=row, index=self.index, position=len(text), kind=kind, kept=kept, ended=ended, **fields)
        text += kept
        self.ended[row] = ended
        return made

    def _decode(self, tokens: list[int]) -> str:
        return self.target.tokenizer.decode(tokens)
