"""`specdec chat`: a conversation in the terminal, with what speculation gained in each answer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..decoding import autoregressive, stream
from ..draft import Drafter
from ..drafters import drafter_named
from ..loading.pair import Pair
from ..sampling.distributions import Sampling
from ..stopping import Stop
from ..trace import Round
from .console import Ink, TokenWriter, percent
from .demo import ABOUT, LOOKS_UP, describe, legend

NAIVE_STEPS = 12  # timed after each answer, as many tokens further
HELP = "Ctrl-C stops an answer, /new begins another conversation, Ctrl-D ends"


@dataclass
class Answer:
    """What is known of one answer."""

    question: str = ""
    rounds: list[Round] = field(default_factory=list)
    naive_step: float = float("nan")  # seconds of a naive step where it ended

    @property
    def tokens(self) -> list[int]:
        return [token for each in self.rounds for token in each.kept]

    @property
    def rate(self) -> float:
        """Tokens a second, without reading the prompt."""
        return len(self.tokens) / sum(sum(each.seconds.values()) for each in self.rounds)

    @property
    def speed_up(self) -> float:
        """Over naive decoding, whose rounds bring a token each."""
        return self.rate * self.naive_step


class Chat:
    """A conversation with a chat model. An answer that is broken off stays in it as far as it went.

    Args:
        pair: a target whose tokenizer has a chat template.
        drafter: None decodes naively.
        k: tokens drafted a round.
        sampling: default greedy.
        max_new_tokens: of an answer at most.

    Raises:
        ValueError: no chat template.
    """

    def __init__(
        self,
        pair: Pair,
        drafter: Drafter | None,
        k: int = 4,
        sampling: Sampling | None = None,
        max_new_tokens: int = 512,
        seed: int = 0,
    ) -> None:
        if not pair.chats:
            raise ValueError("a chat needs a tokenizer with a chat template: take --pair smollm2, or use the demo")
        self.pair, self.drafter, self.k, self.max_new_tokens, self.seed = pair, drafter, k, max_new_tokens, seed
        self.sampling = Sampling(temperature=0) if sampling is None else sampling
        self.messages: list[dict[str, str]] = []
        self.answers: list[Answer] = []

    def forget(self) -> None:
        """Begin another conversation."""
        self.messages.clear()

    def ask(self, question: str) -> Iterator[Round]:
        """The rounds of the answer as they come.

        Raises:
            ValueError: the conversation has grown as long as the model's context; the question is not kept.
        """
        asked = [*self.messages, {"role": "user", "content": question}]
        seed = self.seed + len(self.answers)
        rounds = stream(
            self.pair.target, self.drafter, asked, k=self.k, sampling=self.sampling, seed=seed,
            max_new_tokens=self.max_new_tokens, trace="summary",
        )  # fmt: skip
        return self._follow(Answer(question), asked, rounds)

    def _follow(self, answer: Answer, asked: list[dict[str, str]], rounds: Iterator[Round]) -> Iterator[Round]:
        try:
            for each in rounds:
                answer.rounds.append(each)
                yield each
        finally:  # also where the reader stops listening
            if answer.rounds:
                text = self.pair.tokenizer.decode(answer.tokens, skip_special_tokens=True)
                self.messages = [*asked, {"role": "assistant", "content": text}]
                self.answers.append(answer)

    def time_naive(self) -> None:
        """Time naive steps where the last answer ended, for its speed-up. What they write is thrown away."""
        try:
            made = autoregressive(
                self.pair.target, self.messages, max_new_tokens=NAIVE_STEPS, sampling=self.sampling, stop=Stop()
            )
        except ValueError:  # no room for it in the context
            return
        seconds = sorted(sum(each.seconds.values()) for each in made.trace.rounds)
        self.answers[-1].naive_step = seconds[len(seconds) // 2]

    def shown_tokens(self, each: Round) -> list[tuple[int, str]]:
        """A round's new tokens and their kinds, without what ends the turn."""
        pairs = list(zip(each.kept, each.kept_kinds(), strict=True))
        return pairs[:-1] if pairs and pairs[-1][0] in self.pair.target.end_tokens else pairs


@dataclass(frozen=True)
class ChatSettings:
    """What the command line says."""

    drafter: str = "lookup"
    k: int = 4
    temperature: float = 0.0
    seed: int = 0
    max_new_tokens: int = 512
    show: bool = False


def run(pair: Pair, settings: ChatSettings) -> None:
    """Questions from standard input, one a line, answers on standard output, until there are no more."""
    ink = Ink(sys.stdout)
    chat = Chat(
        pair, drafter_named(settings.drafter, pair.draft, pair.head), settings.k,
        Sampling(temperature=settings.temperature), settings.max_new_tokens, settings.seed,
    )  # fmt: skip
    describe(ink, {"target": pair.target}, ABOUT.get(settings.drafter, LOOKS_UP))
    ink.paragraph("", HELP, "note")
    if settings.show:
        legend(ink)
    ink.line()
    while True:
        try:
            question = read_question(ink)
        except KeyboardInterrupt:
            ink.line()
            continue
        if question is None:
            return
        if question == "/new":
            chat.forget()
            ink.line()
        elif question:
            answer(ink, chat, question, settings.show)


def read_question(ink: Ink) -> str | None:
    """The next line, None at the end of the input. Where it is no terminal, what was read is shown."""
    ink.write(ink("> ", "title"))
    line = sys.stdin.readline()
    if not line:
        ink.line()
        return None
    if not sys.stdin.isatty():
        ink.line(line)
    return line.strip()


def answer(ink: Ink, chat: Chat, question: str, show: bool) -> None:
    """One answer, written as it becomes certain, and a line of figures."""
    try:
        rounds = chat.ask(question)
    except ValueError as error:
        ink.paragraph("", f"{error}; /new begins another conversation")
        return
    writer, before = TokenWriter(chat.pair.tokenizer, (), ink), len(chat.answers)
    stopped = False
    try:
        for each in rounds:
            for token, kind in chat.shown_tokens(each):
                writer.add(token, kind if show else "sampled")
    except KeyboardInterrupt:
        rounds.close()
        stopped = True
    writer.close()
    if len(chat.answers) == before:  # stopped before its first token
        return
    made = chat.answers[-1]
    if not stopped:
        chat.time_naive()
    ink.paragraph("", figures(made) + ", stopped" * stopped, "note")
    ink.line()


def figures(made: Answer) -> str:
    """Tokens a second, and the speed-up, in one line."""
    judged = sum(each.judged for each in made.rounds)
    accepted = sum(each.accepted for each in made.rounds)
    line = f"{len(made.tokens)} tokens, {made.rate:.1f} a second"
    if made.speed_up == made.speed_up:
        line += f", {made.speed_up:.2f} times naive decoding ({1000 * made.naive_step:.1f} ms a step)"
    kept = f", acceptance {percent(accepted / judged)}" if judged else ""
    return line + f"; {len(made.tokens) / len(made.rounds):.2f} tokens a round{kept}"
