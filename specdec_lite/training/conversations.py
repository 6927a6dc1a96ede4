"""Conversations that a chat model has with itself, for its drafts to learn from.

Nearly half of the questions are the model's own: after the bare header of a user's turn it writes what a
user would (Magpie, Xu et al. 2024, arXiv:2406.08464). The others are filled templates of six kinds,
whose passages are partly earlier answers. The answers are the model's, greedy and at temperature 1.
`python -m specdec_lite.training.conversations --out FOLDER`, again to go on. What SmolLM2 wrote in 75
minutes on two cores is in specdec_lite/smollm2/conversations.jsonl.xz.
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..decoding import autoregressive
from ..models import TransformersModel
from ..sampling.distributions import Sampling
from ..stopping import Stop

TEMPLATES: dict[str, Any] = json.loads(Path(__file__).with_name("chat_prompts.json").read_text(encoding="utf-8"))
KINDS = ("chat", "code", "list", "rewrite", "extract", "summarise")
LONGEST_QUESTION, LONGEST_ANSWER = 128, 320  # tokens
STRETCH = 96  # tokens that all rows of a batch are decoded for, before those that have ended are left out
LONGEST_PASSAGE = 700  # characters


@dataclass(frozen=True)
class Conversation:
    """One question and its answer, as the model's tokens; `prompt` ends with the header of the answer."""

    kind: str  # one of KINDS, or "own": the model's own question
    temperature: float
    prompt: list[int]
    answer: list[int]


class Chat:
    """A chat model's turns as tokens, taken from its template."""

    def __init__(self, model: TransformersModel) -> None:
        self.model, self.tokenizer = model, model.tokenizer
        mark = "\u2603"
        before, after = self._text(mark).split(mark)
        self.question_header = self.tokenizer(before, add_special_tokens=False).input_ids
        self.after_question = after
        self.end = self.tokenizer.eos_token_id

    def _text(self, question: str) -> str:
        turns = [{"role": "user", "content": question}]
        return self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)

    def prompt(self, question: str) -> list[int]:
        """A question in the template, up to where the answer begins."""
        return self.tokenizer(self._text(question), add_special_tokens=False).input_ids

    def write(self, prompts: list[list[int]], temperature: float, most: int, seed: int) -> list[list[int]]:
        """Until the end of each turn, or `most` tokens. The end is part of it."""
        how = {"sampling": Sampling(temperature), "stop": Stop((self.end,)), "trace": "off"}
        texts, unfinished = [list(prompt) for prompt in prompts], list(range(len(prompts)))
        for begun in range(0, most, STRETCH):  # rows that have ended take no time in the next stretch
            how |= {"max_new_tokens": min(STRETCH, most - begun), "seed": 1_000_000 * seed + 1000 * begun}
            made = autoregressive(self.model, [texts[row] for row in unfinished], **how).tokens
            for row, new in zip(unfinished, made, strict=True):
                texts[row] += new
            unfinished = [row for row in unfinished if texts[row][-1] != self.end]
            if not unfinished:
                break
        return [text[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]

    def own_questions(self, count: int, seed: int) -> list[str]:
        """What the model itself writes in a user's turn; what does not end in time, or is empty, is left out."""
        made = self.write([self.question_header] * count, 1.0, LONGEST_QUESTION, seed)
        ended = [self.tokenizer.decode(each[:-1]).strip() for each in made if each[-1] == self.end]
        return [text for text in ended if len(text) > 8]


def written_question(kind: str, source: random.Random, answers: list[str]) -> str:
    """A filled template; a passage in it is an earlier answer, or filled itself."""
    made = fill(kind, source)
    if "{passage}" not in made:
        return made
    own = [text for text in answers if 80 < len(text) < LONGEST_PASSAGE]
    passage = source.choice(own) if own and source.random() < 0.5 else fill("passage", source)
    return made.replace("{passage}", passage)


def fill(kind: str, source: random.Random) -> str:
    text = source.choice(TEMPLATES[kind]["templates"])
    for slot, words in TEMPLATES[kind]["slots"].items():
        text = text.replace("{" + slot + "}", source.choice(words))
    return text


def shard(chat: Chat, index: int, size: int, answers: list[str]) -> list[Conversation]:
    """`size` conversations, nearly. Seeds come from the index; answers of odd ones are greedy."""
    source, temperature = random.Random(index), float(index % 2 == 0)
    asked = [("own", question) for question in chat.own_questions(size // 2, 2 * index)]
    asked += [(kind, written_question(kind, source, answers)) for kind in source.choices(KINDS, k=size - size // 2)]
    prompts = [chat.prompt(question) for _, question in asked]
    made = chat.write(prompts, temperature, LONGEST_ANSWER, 2 * index + 1)
    rows = zip(asked, prompts, made, strict=True)
    return [Conversation(kind, temperature, prompt, answer) for (kind, _), prompt, answer in rows]


def read(path: Path) -> Iterator[Conversation]:
    """All conversations of a folder of shards, or of a file that `pack` wrote, in order."""
    for file in sorted(path.glob("shard-*.jsonl")) if path.is_dir() else [path]:
        with (lzma.open if file.suffix == ".xz" else open)(file, "rt", encoding="utf-8") as lines:
            yield from (Conversation(**json.loads(line)) for line in lines)


def pack(folder: Path, file: Path) -> None:
    """All shards as one small file."""
    with lzma.open(file, "wt", preset=9 | lzma.PRESET_EXTREME, encoding="utf-8") as lines:
        lines.writelines(json.dumps(asdict(each)) + "\n" for each in read(folder))


def write(model: TransformersModel, folder: Path, shards: int, size: int, first: int = 0) -> None:
    """Write the shards from `first` up to `shards` that are not there yet; a file is there only when it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    chat, answers = Chat(model), []
    for index in range(first, shards):
        file = folder / f"shard-{index:05d}.jsonl"
        began = time.monotonic()
        if file.exists():
            made = [Conversation(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
        else:
            made = shard(chat, index, size, answers)
            partial = file.with_suffix(".partial")
            partial.write_text("".join(json.dumps(asdict(each)) + "\n" for each in made), encoding="utf-8")
            partial.replace(file)
            tokens = sum(len(each.answer) for each in made)
            print(f"{file.name}: {tokens} tokens of answers, {time.monotonic() - began:.0f} s", flush=True)
        answers = [model.tokenizer.decode(each.answer, skip_special_tokens=True) for each in made]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="smollm2", help="the chat model: a folder or a name (default: smollm2)")
    parser.add_argument("--out", type=Path, required=True, help="where shards go; call again to go on")
    parser.add_argument("--shards", type=int, default=400, help="how many in all (default: 400)")
    parser.add_argument("--first", type=int, default=0, help="begin with this one: those before are elsewhere")
    parser.add_argument("--pack", type=Path, metavar="FILE", help="only put the shards that are there into one file")
    parser.add_argument("--size", type=int, default=128, help="conversations a shard, written at once (default: 128)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    if args.pack:
        pack(args.out, args.pack)
        return
    from ..loading.pair import load_model

    model = load_model(args.target, device=args.device, dtype="bfloat16", engine="eager")
    write(model, args.out, args.shards, args.size, args.first)


if __name__ == "__main__":
    main()
