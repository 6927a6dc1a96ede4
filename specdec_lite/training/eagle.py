"""Train a head that reads the target (EAGLE-3) on the target's own conversations.

A head drafts from its own states after the first token, so it is trained on several of its own steps: Li et al. 2025,
arXiv:2503.01840, "training-time test". It learns the target's whole distribution at each place, by the same distance as
a draft model. `python -m specdec_lite.training.eagle --out FOLDER`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding
from tqdm.auto import tqdm

from ..drafters.eagle_head import EagleHead, head_config
from ..models import TransformersModel
from .conversations import Conversation, read
from .distil import distance
from .passages import Batch, Passages, frequent, split
from .trainer import Loss, Plan, train

SHIPPED = Path(__file__).parents[1] / "smollm2" / "conversations.jsonl.xz"
STEPS = 4  # of the head after each place: as many tokens as it is trained to draft
LOOK_EVERY = 200  # steps between looks at conversations held out
FADE = 0.8  # weight of a step, relative to the one before: later ones are needed less often
PLAN = Plan(
    tokens=8_000_000, context=256, final_context=256, tokens_per_step=2048, muon_lr=0.01, adam_lr=0.001, decay_from=0.3,
    compile=False, bfloat16=True,
)  # fmt: skip


class Teacher:
    """The target's part in training: its embedding, and its logits of the tokens that the head can propose."""

    def __init__(self, target: TransformersModel, head: EagleHead) -> None:
        self.words = target.module.get_input_embeddings().weight.detach()
        self.unembedding = target.module.get_output_embeddings().weight.detach()[head.token_ids]

    def pairs(self, head: EagleHead, batch: Batch, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """For each step the logits of target and head, where it drafts a token of an answer. [places, vocab] both"""
        words = embedding(batch.tokens, self.words)
        for step, state in enumerate(head.unroll(batch.given, words, steps)):
            ahead = 1 + step  # the target's place that predicts the same token
            learnt = batch.learnt[:, ahead:]
            mine = head.lm_head(head.norm(state[:, : state.shape[1] - ahead][learnt]))
            yield batch.last[:, ahead:][learnt] @ self.unembedding.T, mine

    def loss(
        self, passages: Passages, steps: int, variation: float = 1.0, divergence: float = 0.3, compiled: bool = False
    ) -> Loss:
        """The distance to the target's distribution, a weighted mean over steps."""
        weights = [FADE**step for step in range(steps)]
        apart = torch.compile(distance, dynamic=True) if compiled else distance

        def loss(head: nn.Module, places: Tensor) -> Tensor:
            batch = passages.batch(places.flatten().tolist(), places.device)
            parts = [apart(theirs, mine, variation, divergence) for theirs, mine in self.pairs(head, batch, steps)]
            return sum(weight * part for weight, part in zip(weights, parts, strict=True)) / sum(weights)

        return loss

    @torch.no_grad()
    def evaluate(self, head: EagleHead, passages: Passages, steps: int, rows: int = 16) -> dict[str, list[float]]:
        """By step: overlap with the target's distribution, and how often both have the same first choice.

        Over the tokens that the head can propose, and as if all drafted tokens before were accepted.
        """
        overlap, same, count = [0.0] * steps, [0.0] * steps, [0] * steps
        for begin in range(0, len(passages.tokens), rows):
            places = range(begin, min(begin + rows, len(passages.tokens)))
            batch = passages.batch(places, self.words.device)
            with torch.autocast(self.words.device.type, torch.bfloat16, enabled=self.words.dtype == torch.bfloat16):
                for step, (theirs, mine) in enumerate(self.pairs(head, batch, steps)):
                    shared = torch.minimum(theirs.float().softmax(-1), mine.float().softmax(-1))
                    overlap[step] += float(shared.sum())
                    same[step] += float((theirs.argmax(-1) == mine.argmax(-1)).sum())
                    count[step] += len(mine)
        shares = {"overlap": overlap, "same_choice": same}
        return {name: [total / n for total, n in zip(each, count, strict=True)] for name, each in shares.items()}


def looking(loss: Loss, look: Callable[[nn.Module], None], every: int) -> Loss:
    """The same, with a look at the head before every so many batches."""
    calls = itertools.count()

    def looked(head: nn.Module, places: Tensor) -> Tensor:
        if next(calls) % every == 0:
            look(head)
        return loss(head, places)

    return looked


def head_start(head: EagleHead, target: TransformersModel) -> None:
    """Begin as what the target does with its late state: its last layer, its gains, its rows of the output.

    The part of attention that reads embeddings begins as the target's first layer's, which reads them too.
    """
    body, layer = target.module.model, head.midlayer
    late, early = body.layers[-1], body.layers[0]
    width = head.config.hidden_size
    with torch.no_grad():
        head.fc.weight.zero_()[:, -width:] = torch.eye(width)
        for name in ("q_proj", "k_proj", "v_proj"):
            mine = getattr(layer.self_attn, name).weight  # [out, 2 * width]
            for half, source in enumerate((early, late)):
                theirs = getattr(source.self_attn, name).weight.unflatten(0, (-1, layer.self_attn.head_dim))
                repeats = mine.shape[0] // (theirs.shape[0] * theirs.shape[1])
                mine[:, half * width : (half + 1) * width] = theirs.repeat_interleave(repeats, 0).flatten(0, 1)
        layer.self_attn.o_proj.weight.copy_(late.self_attn.o_proj.weight)
        layer.mlp.load_state_dict(late.mlp.state_dict())
        layer.input_layernorm.weight.copy_(early.input_layernorm.weight)
        layer.hidden_norm.weight.copy_(late.input_layernorm.weight)
        layer.post_attention_layernorm.weight.copy_(late.post_attention_layernorm.weight)
        head.norm.weight.copy_(body.norm.weight)
        head.lm_head.weight.copy_(target.module.get_output_embeddings().weight[head.token_ids])


def new_head(target: TransformersModel, conversations: Sequence[Conversation], draft_vocab_size: int) -> EagleHead:
    head = EagleHead(head_config(target.module.config, draft_vocab_size)).to(target.device)
    head.set_tokens(frequent(conversations, draft_vocab_size, target.vocab_size))
    head_start(head, target)
    return head


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="smollm2", help="the chat model: a folder or a name (default: smollm2)")
    shards = "folders or files of training.conversations (default: what SmolLM2 wrote, in this package)"
    parser.add_argument("--conversations", type=Path, nargs="+", default=[SHIPPED], help=shards)
    parser.add_argument("--out", type=Path, required=True, help="where the head goes; call again to go on")
    parser.add_argument("--draft-vocab", type=int, default=8192, help="tokens that it can propose (default: 8192)")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"tokens that it learns to draft (default: {STEPS})")
    parser.add_argument("--tokens", type=int, default=PLAN.tokens, help="to train on, repeats counted")
    parser.add_argument("--minutes", type=float, default=math.inf, help="end after so many, if nothing else ends it")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="the loss; needs a C++ compiler")
    parser.add_argument("--muon-lr", type=float, default=PLAN.muon_lr, help=f"default: {PLAN.muon_lr}")
    args = parser.parse_args(argv)
    from ..loading.pair import load_model

    target = load_model(args.target, device=args.device, dtype="bfloat16", engine="eager")
    learn, held = split([each for path in args.conversations for each in read(path)])
    head = new_head(target, learn, args.draft_vocab)
    coverage = float(head.t2d[torch.tensor([token for each in held for token in each.answer])].float().mean())
    print(f"{len(learn)} conversations, {sum(len(each.answer) for each in learn)} tokens of answers")
    print(f"the {args.draft_vocab} tokens that the head can propose are {coverage:.1%} of other answers")
    unseen, passages = (Passages.record(target, some, head.states) for some in (held, learn))
    teacher, plan = Teacher(target, head), replace(PLAN, tokens=args.tokens, minutes=args.minutes, muon_lr=args.muon_lr)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = plan.tokens_per_step // plan.context
    curve = []

    def look(head: EagleHead) -> None:
        curve.append(teacher.evaluate(head, unseen, args.steps))
        tqdm.write(f"after {LOOK_EVERY * (len(curve) - 1)} steps: {told(curve[-1])}")

    loss = looking(teacher.loss(passages, args.steps, compiled=args.compile), look, LOOK_EVERY)
    state = train(head, lambda *_: passages.items(rows), loss, plan, args.out / "checkpoint.pt", "head")
    found = teacher.evaluate(head, unseen, args.steps)
    head.save(args.out)
    made = state | found | {"coverage": coverage, "look_every": LOOK_EVERY, "curve": curve}
    (args.out / "training.json").write_text(json.dumps(made, indent=1) + "\n")
    print(f"after {state['step']} steps: {told(found)}")


def told(found: dict[str, list[float]]) -> str:
    return "; ".join(f"{name} {' '.join(f'{share:.3f}' for share in shares)}" for name, shares in found.items())


if __name__ == "__main__":
    main()
