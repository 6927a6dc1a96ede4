"""The collection: what is wrong, what it does, which alarm sees it, and where it happened.

A thread is cited only where it was read. Where `threads` is empty, the mistake is common and no thread was found.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...acceptance import SampleAndMatch
from ...drafters import ModelDrafter
from .drafting import DraftWith, FavouriteSession, ForgetfulSession, UnfilteredSession
from .models import GreedyBonus, SlackRewind
from .rules import RedrawAfterMismatch, ResampleFromTarget, TriedInTurn
from .setup import Exhibit, Setup
from .surroundings import LastTokenStop, Ledger, OneUniform

MUSEUM: Sequence[Exhibit] = (
    Exhibit(
        "nothing wrong", "exact", lambda target, draft: Setup(target, ModelDrafter(draft)), None,
        "The control: no test may ring.",
    ),
    Exhibit(
        "argmax draft, soft p_draft", "biased",
        lambda target, draft: Setup(target, DraftWith(draft, FavouriteSession)), "enumeration",
        "The favourite looks like the safest guess, so the draft takes it; the rule goes on with the softmax.",
        (
            ("huggingface/transformers#32867", "the assistant drafted greedily, and the rule divided by its softmax"),
            ("huggingface/transformers#33534", "the repair: the assistant samples when the main model samples"),
            ("jaymody/speculative-sampling#3", "the same in a well-known tutorial, explained by its author"),
        ),
    ),
    Exhibit(
        "p_draft before top-k", "biased",
        lambda target, draft: Setup(target, DraftWith(draft, UnfilteredSession)), "enumeration",
        "Logits are filtered where tokens are drawn, and p_draft is a softmax taken earlier.",
        (
            ("huggingface/transformers#47932", "candidate generators drew from processed logits and returned raw ones"),
            ("huggingface/transformers#47961", "a repair: return what the candidates were drawn from"),
        ),
    ),
    Exhibit(
        "resample from the target", "biased",
        lambda target, draft: Setup(target, ModelDrafter(draft), ResampleFromTarget()), "enumeration",
        "The residual looks like a detail, so the replacement is drawn from the target.",
        (
            ("vllm-project/vllm#46665", "a trace of it: log(1 - x) rounded, so the residual leaned to the target"),
            ("NJUNLP/MCSD#5", "a reader suspects it; the author shows that the residual was written in place"),
        ),
    ),
    Exhibit(
        "redraw after a mismatch", "biased",
        lambda target, draft: Setup(target, ModelDrafter(draft), RedrawAfterMismatch()), "enumeration",
        "The target's own token differs from the draft; it is thrown away, and a fresh one is drawn.",
    ),
    Exhibit(
        "bonus token by argmax", "biased",
        lambda target, draft: Setup(GreedyBonus(target), ModelDrafter(draft)), "enumeration",
        "A round in which all went well ends with the target's favourite instead of a draw.",
        (("EricLBuehler/mistral.rs#2424", "a wider relative: on the speculative path every draw was an argmax"),),
    ),
    Exhibit(
        "target cache rewound one too few", "biased",
        lambda target, draft: Setup(SlackRewind(target), ModelDrafter(draft)), "enumeration",
        "Off by one: the rejected token stays in the target's cache, and everything after it shifts.",
        (
            ("ml-explore/mlx-lm#1109", "a relative: a cache that ignored the rewind kept all rejected tokens in sight"),
            ("ml-explore/mlx-examples#149", "an off by one with the cache, found because twins did not agree"),
        ),
    ),
    Exhibit(
        "end of text inside a block", "biased",
        lambda target, draft: Setup(target, ModelDrafter(draft), stops=LastTokenStop), "enumeration",
        "Only the last token of a round is asked whether it ends the text.",
        (
            ("huggingface/transformers#47912", "an end token accepted mid-block did not stop the text"),
            ("LostRuins/koboldcpp#1276", "a report of tokens that came after the end"),
        ),
    ),
    Exhibit(
        "penalty remembers rejected tokens", "biased",
        lambda target, draft: Setup(target, ModelDrafter(draft), processor=Ledger), "enumeration",
        "The penalty keeps its own count, and nobody strikes out what was rejected.",
        (
            ("osaurus-ai/vmlx-swift#357", "two copies of a penalty shared one count, so rejected drafts were counted"),
            ("sgl-project/sglang#33643", "the opposite: a round counted one token only, so the penalty was too weak"),
        ),
    ),
    Exhibit(
        "one uniform for every position", "biased",
        lambda target, draft: Setup(target, ModelDrafter(draft), streams=OneUniform), "pairs",
        "One random number a round, broadcast over the positions.",
        (
            ("vllm-project/vllm#47386", "a relative: draft, verdict and replacement shared one stream of numbers"),
            ("vllm-project/vllm-ascend#16370", "a relative: verdict and replacement used the same number"),
        ),
    ),
    Exhibit(
        "last draft token not fed", "exact but slow",
        lambda target, draft: Setup(target, DraftWith(draft, ForgetfulSession)), "twin",
        "After full acceptance the draft has never seen its own last token.",
        (
            ("vllm-project/vllm#4212", "bonus tokens were off; to have them, the draft's cache must get what it lacks"),
            ("vllm-project/vllm#9730", "and once they were on, a wrong entry made acceptance drop sharply"),
        ),
    ),
    Exhibit(
        "draft cache rewound one too few", "exact but slow",
        lambda target, draft: Setup(target, ModelDrafter(SlackRewind(draft))), "twin",
        "The same off by one, in the draft: the text stays right and acceptance falls.",
        (("lablup/mlxcel#994", "the other way round: two entries too many were dropped, and the draft starved"),),
    ),
    Exhibit(
        "sample and match", "exact",
        lambda target, draft: Setup(target, ModelDrafter(draft), SampleAndMatch()), None,
        "No ratio, no residual: the target draws, and the draft stays if it is the same. Exact; it keeps less.",
        (
            ("lablup/mlxcel#902", "reports it as a bias"),
            ("lablup/mlxcel#992", "measures, and takes the premise back: exact, it only accepts less"),
        ),
    ),
    Exhibit(
        "candidates tried in turn", "exact",
        lambda target, draft: Setup(target, DraftWith(draft, FavouriteSession), TriedInTurn()), None,
        "An argmax draft, and nobody divides by p_draft. Exact: refused candidates are masked, the rest is scaled up.",
        (
            ("SafeAILab/EAGLE#221", "a reader objects to the fixed list; the author: each is drawn with chance one"),
            ("SafeAILab/EAGLE#93", "why q is 1.0"),
        ),
    ),
)  # fmt: skip
