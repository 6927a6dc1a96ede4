"""The collection: what is wrong, what it does, and which alarm sees it. Where it happened is in stories.json."""

from __future__ import annotations

from collections.abc import Sequence

from ...acceptance import BlockVerification, SampleAndMatch
from ...drafters.model import ModelDrafter
from .drafting import DraftWith, FavouriteSession, ForgetfulSession, UnfilteredSession
from .models import GreedyBonus, SlackRewind
from .rules import FirstFailureEnds, RedrawAfterMismatch, ResampleFromTarget, TriedInTurn
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
    ),
    Exhibit(
        "p_draft before top-k", "biased",
        lambda target, draft: Setup(target, DraftWith(draft, UnfilteredSession)), "enumeration",
        "Logits are filtered where tokens are drawn, and p_draft is a softmax taken earlier.",
    ),
    Exhibit(
        "resample from the target", "biased",
        lambda target, draft: Setup(target, ModelDrafter(draft), ResampleFromTarget()), "enumeration",
        "The residual looks like a detail, so the replacement is drawn from the target.",
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
    ),
    Exhibit(
        "target cache rewound one too few", "biased",
        lambda target, draft: Setup(SlackRewind(target), ModelDrafter(draft)), "enumeration",
        "Off by one: the rejected token stays in the target's cache, and everything after it shifts.",
    ),
    Exhibit(
        "end of text inside a block", "biased",
        lambda target, draft: Setup(target, ModelDrafter(draft), stops=LastTokenStop), "enumeration",
        "Only the last token of a round is asked whether it ends the text.",
    ),
    Exhibit(
        "penalty remembers rejected tokens", "biased",
        lambda target, draft: Setup(target, ModelDrafter(draft), processor=Ledger), "enumeration",
        "The penalty keeps its own count, and nobody strikes out what was rejected.",
    ),
    Exhibit(
        "one uniform for every position", "biased",
        lambda target, draft: Setup(target, ModelDrafter(draft), streams=OneUniform), "dice",
        "One random number a round, broadcast over the positions.",
    ),
    Exhibit(
        "last draft token not fed", "exact but slow",
        lambda target, draft: Setup(target, DraftWith(draft, ForgetfulSession)), "twin",
        "After full acceptance the draft has never seen its own last token.",
    ),
    Exhibit(
        "draft cache rewound one too few", "exact but slow",
        lambda target, draft: Setup(target, ModelDrafter(SlackRewind(draft))), "twin",
        "The same off by one, in the draft: the text stays right and acceptance falls.",
    ),
    Exhibit(
        "sample and match", "exact",
        lambda target, draft: Setup(target, ModelDrafter(draft), SampleAndMatch()), None,
        "No ratio, no residual: the target draws, and the draft stays if it is the same. Exact; it keeps less.",
    ),
    Exhibit(
        "candidates tried in turn", "exact",
        lambda target, draft: Setup(target, DraftWith(draft, FavouriteSession), TriedInTurn()), None,
        "An argmax draft, and nobody divides by p_draft. Exact: refused candidates are masked, the rest is scaled up.",
    ),
    Exhibit(
        "block verification", "exact",
        lambda target, draft: Setup(target, ModelDrafter(draft), BlockVerification()), None,
        "A position fails its test, and a longer prefix is accepted all the same. Exact; it keeps the most.",
    ),
    Exhibit(
        "block verification, ended by a failure", "biased",
        lambda target, draft: Setup(target, ModelDrafter(draft), FirstFailureEnds()), "enumeration",
        "Nobody goes on after a failed test, as in token rejection: a reviewer may even ask for it.",
    ),
)  # fmt: skip
