"""Draft with a head that reads the target's hidden states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import embedding
from torch.nn.utils.rnn import pad_sequence

from ..draft import Draft, HasLayers, Texts, left_in_context
from ..engines.attention import for_groups
from ..engines.cpu_kernels import product
from ..engines.lean import Layer, Norm, RotaryTable
from ..kv_cache import KVCache
from ..messages import shown
from ..models import CHUNK, LanguageModel
from ..randomness import Randomness
from ..sampling.distributions import Sampler
from ..transfer import send
from .eagle_head import EagleHead


class EagleDrafter:
    """Draft with a head that reads three of the target's hidden states and the last token (EAGLE-3).

    The head is a single layer, so a drafted token costs little; and it starts from what the target knows already,
    so it needs few weights to be right often. Li et al. 2025, arXiv:2503.01840.

    Args:
        head: trained for the target that it is used with.

    Raises:
        TypeError: no head; at the start of a run, a target that is no TransformersModel.
        ValueError: at the start of a run, a head for a target of another width, vocabulary, depth or device.

    Example:
        >>> from specdec_lite.drafters.eagle_head import EagleHead, head_config
        >>> target = sd.load_pair().target
        >>> head = EagleHead(head_config(target.module.config, draft_vocab_size=64))  # not trained
        >>> made = sd.speculative(target, sd.EagleDrafter(head), [1, 2, 3], k=2, max_new_tokens=8)
        >>> len(made.tokens)
        8
    """

    def __init__(self, head: EagleHead) -> None:
        if not isinstance(head, EagleHead):
            raise TypeError(f"EagleDrafter needs a head, such as EagleHead.load(folder), got {shown(head)}")
        self.head, self.runner = head, HeadRunner(head)

    def open(self, texts: Texts, target: LanguageModel, cache: KVCache) -> EagleSession:
        if not isinstance(target, HasLayers) or not hasattr(target, "module"):
            raise TypeError(f"EagleDrafter needs a TransformersModel as target, got {shown(target)}")
        config, runner = self.head.config, self.runner
        words = target.module.get_input_embeddings().weight.detach()
        for what, own, theirs in (
            ("hidden states of width", config.target_hidden_size, target.module.config.get_text_config().hidden_size),
            ("embeddings of width", config.hidden_size, words.shape[1]),
            ("a vocabulary of", config.vocab_size, target.vocab_size),
            ("weights on", str(runner.token_ids.device), str(target.device)),
        ):
            if own != theirs:
                raise ValueError(f"the head is for another target: it has {what} {own}, and the target {theirs}")
        if max(runner.states) > target.layers:
            raise ValueError(
                f"the head reads hidden state {max(runner.states)} of a target with {target.layers} layers"
            )
        return EagleSession(runner, words, texts, target, cache)


class HeadRunner:
    """The head's forward over a cache, with its products packed as the lean engine's are."""

    def __init__(self, head: EagleHead) -> None:
        self.states, self.token_ids = head.states, head.token_ids
        self.fc, self.head = product([head.fc]), product([head.lm_head])
        self.layer, self.norm = HeadLayer(head.midlayer), Norm(head.norm)
        self.dtype = head.fc.weight.dtype
        self.rotary = RotaryTable(head.rotary, head.fc.weight, head.config.max_position_embeddings)
        self.group = self.layer.heads // self.layer.kv_heads

    def __call__(self, state: Tensor, words: Tensor, cache: KVCache) -> Tensor:
        """One step at n places: states and embeddings of the next tokens [batch, n, width] -> states after it."""
        n = state.shape[1]
        cache.reserve(n)
        turns = self.rotary(cache.position_limit)[cache.positions]
        mask = for_groups(cache.mask(self.dtype), self.group)
        state = self.layer.step(state, words, turns, mask, cache)  # [batch, n, width]
        cache.advance(n)
        return state

    def logits(self, state: Tensor, vocab_size: int) -> Tensor:
        """Over the target's vocabulary, where most tokens are out of reach. [batch, n, width] -> [batch, n, vocab]"""
        reached = self.head(self.norm(state))  # [batch, n, draft_vocab]
        logits = reached.new_full((*reached.shape[:2], vocab_size), -torch.inf)
        return logits.index_copy_(2, self.token_ids, reached)


class HeadLayer(Layer):
    """A decoder layer whose attention reads the embedding of the next token beside the state."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__(layer, 0, "", copy=True)
        self.hidden_norm = Norm(layer.hidden_norm)

    def step(self, state: Tensor, words: Tensor, turns: Tensor, mask: Tensor, cache: KVCache) -> Tensor:
        seen = torch.cat([self.norms[0](words), self.hidden_norm(state)], -1)  # [batch, n, 2 * width]
        return self.feed_forward(state + self.out(self.attend(seen, turns, mask, cache)))


class EagleSession:
    """The head's cache, and the target's hidden states that it has not read yet.

    Place i of the cache holds what the head made of the target's states at token i and of token i + 1. Between rounds
    it holds every place but those of the round's new tokens, whose states came with the verification.
    """

    def __init__(self, runner: HeadRunner, words: Tensor, texts: Texts, target: LanguageModel, cache: KVCache) -> None:
        self.runner, self.words, self.target, self.target_cache = runner, words, target, cache
        self.cache = KVCache(len(texts), cache.capacity, target.device)
        self.read = [0] * len(texts)  # places of each text that the head has read
        width = len(runner.states) * words.shape[1]
        self.unread = [words.new_empty(0, width) for _ in texts]  # the target's states at the places that follow
        self.last = list(self.unread)  # and at the last place that was read

    @property
    def states(self) -> tuple[int, ...]:
        """Which of the target's hidden states are wanted."""
        return self.runner.states

    def observe(self, hidden: Mapping[int, Tensor]) -> None:
        """Keep the states of the tokens that the target has just read; those of rejected tokens are written over."""
        joined = torch.cat([hidden[i] for i in self.states], -1)  # [batch, n, states * width]
        for row, length in enumerate(self.target_cache.lengths):
            begin = length - joined.shape[1] - self.read[row]
            self.unread[row] = torch.cat([self.unread[row][:begin], joined[row]])

    def max_draft_tokens(self, length: int) -> int:
        return left_in_context(self.target.context, length) if length > 1 else 0  # a place needs a token that follows

    def propose(self, texts: Texts, k: int, sampler: Sampler, randomness: Randomness) -> Draft:
        state = self._catch_up(texts)  # [batch, 1, width], at the last place whose next token is known
        tokens, probs = send([[] for _ in texts], self.target.device).view(len(texts), 0), []
        for drafted in range(k):
            if drafted:
                state = self.runner(state, embedding(tokens[:, -1:], self.words).to(self.runner.dtype), self.cache)
            logits = self.runner.logits(state, self.target.vocab_size)  # [batch, 1, vocab]
            token, p_draft = sampler.draw(logits, texts, tokens, randomness)  # [batch, 1], [batch, 1, vocab] or None
            tokens = torch.cat([tokens, token], 1)
            probs.append(p_draft)
        self.cache.rewind([k - 1] * len(texts))
        return Draft(tokens, sampler.together(tokens, probs, self.target.vocab_size), [k] * len(texts))

    def _catch_up(self, texts: Texts) -> Tensor:
        """Read the places that are new, and return the state at each row's last one. -> [batch, 1, width]"""
        places = [len(text) - 1 - read for text, read in zip(texts, self.read, strict=True)]
        states = [unread[:n] for unread, n in zip(self.unread, places, strict=True)]
        if min(places) == 0:  # a text that did not grow: its last place is read again
            states = [state if len(state) else last for state, last in zip(states, self.last, strict=True)]
            again = [n == 0 and len(last) > 0 for n, last in zip(places, self.last, strict=True)]
            self.cache.rewind(list(map(int, again)))
        following = [list(text[len(text) - len(state) :]) for text, state in zip(texts, states, strict=True)]
        counts = [len(state) for state in states]
        longest = max(counts)
        rows = [each + [0] * (longest - len(each)) for each in following]
        tokens = send(rows, self.target.device)  # [batch, longest]
        given = pad_sequence(states, batch_first=True).to(self.runner.dtype)  # [batch, longest, states * width]
        parts = [
            self.runner(self.runner.fc(state), embedding(token, self.words).to(self.runner.dtype), self.cache)
            for state, token in zip(given.split(CHUNK, 1), tokens.split(CHUNK, 1), strict=True)
        ]
        self.cache.rewind([longest - n for n in counts])
        self.last = [state[-1:] for state in states]
        self.unread = [unread[n:] for unread, n in zip(self.unread, places, strict=True)]
        self.read = [len(text) - 1 for text in texts]
        made = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return last_of(made, counts)


def last_of(states: Tensor, counts: Sequence[int]) -> Tensor:
    """The last of each row's first `counts` states. [batch, n, width] -> [batch, 1, width]"""
    if min(counts) == states.shape[1]:
        return states[:, -1:]
    at = send([max(0, count - 1) for count in counts], states.device)
    return states[torch.arange(len(counts), device=states.device), at].unsqueeze(1)
