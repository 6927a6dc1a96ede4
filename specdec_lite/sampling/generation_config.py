"""A model's generation_config as sampling and logits processors, as transformers' generate() reads it.

What cannot be done token by token is refused by name. Settings that a call leaves unused are named once in a warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..messages import shown
from ..models import LanguageModel
from .distributions import Sampling
from .processors import Chain, Processor

if TYPE_CHECKING:
    from transformers import GenerationConfig

DEFAULT_TOP_K = 50  # generate()'s own when it samples and nobody says otherwise
DRAWN = ("temperature", "top_k", "top_p", "min_p")  # what `Sampling` says
WARPERS = ("top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")  # what it doesn't; all of both only with do_sample
PROCESSED = (
    "sequence_bias", "repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "min_length", "min_new_tokens",
    "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty",
    "suppress_tokens", "begin_suppress_tokens",
)  # fmt: skip
REFUSED = {
    "num_beams": "searches in beams",
    "constraints": "searches in beams",
    "force_words_ids": "searches in beams",
    "num_return_sequences": "makes several texts of one prompt, as a batch of it does",
    "guidance_scale": "runs the model a second time at every token",
    "penalty_alpha": "compares the model's hidden states",
    "dola_layers": "compares the model's layers",
    "token_healing": "changes the prompt",
    "watermarking_config": "may keep state: give its processor in `processors`",
}
NEUTRAL = dict.fromkeys(("temperature", "top_p", "typical_p", "repetition_penalty", "guidance_scale"), 1.0)
NEUTRAL |= dict.fromkeys(("num_beams", "num_return_sequences"), 1)
NEUTRAL |= dict.fromkeys(("top_k", "min_p", "epsilon_cutoff", "eta_cutoff", "no_repeat_ngram_size"), 0)
NEUTRAL |= dict.fromkeys(("min_length", "min_new_tokens"), 0)
NEUTRAL |= dict.fromkeys(("remove_invalid_values", "token_healing"), False)


def is_config(value: object) -> bool:
    return any(kind.__name__ == "GenerationConfig" for kind in type(value).__mro__)


def is_on(config: GenerationConfig, name: str) -> bool:
    """Whether a setting has a value that changes something."""
    value = getattr(config, name, None)
    return value is not None and not (name in NEUTRAL and value == NEUTRAL[name])


def read(
    config: GenerationConfig,
    lengths: Sequence[int],
    max_new_tokens: int,
    end_tokens: Sequence[int],
    device: torch.device,
    chains: Sequence[Chain],
) -> tuple[Sampling, list[Chain]]:
    """The sampling, and a chain of logits processors for each prompt, in generate()'s order.

    Without do_sample that is greedy. As in generate(), sampling without a top_k means 50.

    Args:
        lengths: tokens of each prompt.
        chains: the user's own processors for each prompt.

    Raises:
        ValueError: it asks for what can't be done token by token, or a value is outside its range.
    """
    for name, why in REFUSED.items():
        if is_on(config, name):
            raise ValueError(f"generation_config.{name}={shown(getattr(config, name))} {why}: unset it in a copy")
    sampling, warpers = Sampling(temperature=0), []
    if config.do_sample:
        drawn = {name: value for name in DRAWN if (value := getattr(config, name, None)) is not None}
        sampling = Sampling(**(dict(top_k=DEFAULT_TOP_K) | drawn))
        if any(is_on(config, name) for name in WARPERS):
            sampling, warpers = Sampling(), _warpers(config, sampling, device)  # all, so that their order holds
    ends = torch.tensor(end_tokens, dtype=torch.long, device=device)
    return sampling, [
        [*_processors(config, length, max_new_tokens, ends, device), *chain, *warpers]
        for length, chain in zip(lengths, chains, strict=True)
    ]


def _processors(
    config: GenerationConfig, length: int, max_new_tokens: int, ends: torch.Tensor, device: torch.device
) -> list[Processor]:
    """Those of one row, in generate()'s order. length: of the prompt; ends [how many]: its end tokens."""
    import transformers as t  # only here, so that importing the package stays quick

    makers = {
        "sequence_bias": t.SequenceBiasLogitsProcessor,
        "repetition_penalty": t.RepetitionPenaltyLogitsProcessor,
        "no_repeat_ngram_size": t.NoRepeatNGramLogitsProcessor,
        "bad_words_ids": lambda words: t.NoBadWordsLogitsProcessor(words, ends if len(ends) else None),
        "min_length": lambda least: t.MinLengthLogitsProcessor(least, ends, device=device),
        "min_new_tokens": lambda least: t.MinNewTokensLengthLogitsProcessor(length, least, ends, device=device),
        "forced_bos_token_id": t.ForcedBOSTokenLogitsProcessor,
        "forced_eos_token_id": lambda token: t.ForcedEOSTokenLogitsProcessor(
            length + max_new_tokens, token, device=device
        ),
        "remove_invalid_values": lambda _: t.InfNanRemoveLogitsProcessor(),
        "exponential_decay_length_penalty": lambda how: t.ExponentialDecayLengthPenalty(how, ends, length),
        "suppress_tokens": lambda tokens: t.SuppressTokensLogitsProcessor(tokens, device=device),
        "begin_suppress_tokens": lambda tokens: t.SuppressTokensAtBeginLogitsProcessor(tokens, length, device=device),
    }
    without_end = () if len(ends) else ("min_length", "min_new_tokens", "exponential_decay_length_penalty")
    return [
        makers[name](getattr(config, name)) for name in PROCESSED if is_on(config, name) and name not in without_end
    ]


def _warpers(config: GenerationConfig, sampling: Sampling, device: torch.device) -> list[Processor]:
    """All that changes the distribution of a sampled token, in generate()'s order."""
    import transformers as t

    every = [
        ("temperature", t.TemperatureLogitsWarper),
        ("top_h", t.TopHLogitsWarper),
        ("top_k", t.TopKLogitsWarper),
        ("top_p", t.TopPLogitsWarper),
        ("min_p", t.MinPLogitsWarper),
        ("typical_p", t.TypicalLogitsWarper),
        ("epsilon_cutoff", t.EpsilonLogitsWarper),
        ("eta_cutoff", lambda epsilon: t.EtaLogitsWarper(epsilon, device=device)),
    ]
    values = {name: getattr(sampling, name, getattr(config, name, None)) for name, _ in every}
    return [make(value) for name, make in every if (value := values[name]) not in (None, NEUTRAL.get(name))]


def warn_unused(model: LanguageModel, sampling: Any, processors: Any) -> None:
    """Warn once of settings of the model's own generation_config that this call doesn't replace."""
    config = getattr(model, "generation_config", None)
    if config is None or is_config(sampling) or getattr(model, "warned_unused", True):
        return
    names = [*(PROCESSED if processors is None else ())]
    names += [*DRAWN, *WARPERS] if sampling is None and config.do_sample else []
    unused = [f"{name}={shown(getattr(config, name), 40)}" for name in names if is_on(config, name)]
    if unused:
        model.warned_unused = True  # type: ignore[attr-defined]
        warnings.warn(
            f"{', '.join(unused)}: set in the model's generation_config, and not used here. sampling="
            "target.generation_config decodes by all of it; `sampling` and `processors` of your own replace it",
            stacklevel=4,
        )
