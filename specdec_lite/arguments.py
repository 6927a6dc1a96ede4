"""The arguments of the command `specdec`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import NoReturn

MAX_K = 16  # as decoding.MAX_K, which would load torch
PAIRS = ("pocket", "smollm2")  # as loading.named.NAMED, likewise
DRAFTERS = ("model", "head", "lookup", "exit")  # as drafters.DRAFTERS, likewise
PARTS = ("roofline", "bench", "doctor", "wide", "outside", "lookup", "bad-draft")  # as targets.PARTS, likewise


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argument type: a whole number within bounds."""

    def parse(text: str) -> int:
        wanted = f"a whole number from {least} to {most}" if most else f"a whole number of at least {least}"
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"must be {wanted}, got {text!r}")
        return value

    return parse


def temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be 0 (greedy) or a positive number, got {text!r}")
    return value


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text!r}")
    return value


def build_parser() -> Parser:
    parser = Parser(prog="specdec", description="Speculative decoding: see it, time it.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)

    demo = commands.add_parser("demo", help="decode one text naively and speculatively, and compare")
    demo.add_argument("--prompt", help="text to continue, or to a chat model a question (default: one built in)")
    add_drafter(demo, DRAFTERS)
    demo.add_argument("--k", type=whole(1, MAX_K), default=4, help="tokens drafted a round, 1 to 16 (default: 4)")
    demo.add_argument("--temperature", type=temperature, default=0.0, help="0 is greedy (default: 0)")
    demo.add_argument("--seed", type=whole(0), default=0, help="of the random numbers (default: 0)")
    demo.add_argument("--max-new-tokens", type=whole(1), default=128, metavar="N", help="length (default: 128)")
    demo.add_argument("--repeats", type=whole(1), default=5, metavar="N", help="timed runs of each (default: 5)")
    demo.add_argument("--json", action="store_true", help="print the numbers as JSON and nothing else")
    add_pair(demo)

    chat = commands.add_parser("chat", help="talk with a chat model, and see what speculation gains")
    add_drafter(chat, DRAFTERS)
    chat.add_argument("--show", action="store_true", help="mark accepted, corrected and bonus tokens")
    chat.add_argument("--k", type=whole(1, MAX_K), default=4, help="tokens drafted a round, 1 to 16 (default: 4)")
    chat.add_argument("--temperature", type=temperature, default=0.0, help="0 is greedy (default: 0)")
    chat.add_argument("--seed", type=whole(0), default=0, help="of the random numbers (default: 0)")
    chat.add_argument("--max-new-tokens", type=whole(1), default=512, metavar="N", help="an answer (default: 512)")
    add_pair(chat, pair="smollm2")

    bench = commands.add_parser("bench", help="time this library against transformers, for several K")
    bench.add_argument(
        "--k",
        type=whole(1, MAX_K),
        nargs="+",
        metavar="K",
        help="values of K to try (default: 1 2 3 4 5 6 8; with --batch 1 2 4)",
    )
    bench.add_argument("--temperatures", type=temperature, nargs="+", metavar="T", help="default: 0 1; with --batch 0")
    bench.add_argument(
        "--prompts",
        type=whole(1),
        default=4,
        metavar="N",
        help="from held-out files, or of each kind of question (default: 4)",
    )
    bench.add_argument("--max-new-tokens", type=whole(1), default=64, metavar="N", help="for each (default: 64)")
    bench.add_argument("--repeats", type=whole(1), default=5, metavar="N", help="interleaved rounds (default: 5)")
    bench.add_argument(
        "--drafter",
        choices=DRAFTERS,
        nargs="+",
        metavar="NAME",
        help=f"for a chat model, some of {', '.join(DRAFTERS)}",
    )
    bench.add_argument("--only", choices=["own", "transformers"], help="leave the other one out")
    bench.add_argument("--json", metavar="FILE", help="also write everything measured, raw seconds included")
    bench.add_argument(
        "--batch",
        type=whole(1),
        nargs="+",
        metavar="N",
        help="instead: where a growing batch ends the gain, for each K",
    )
    add_pair(bench)

    doctor = commands.add_parser("doctor", help="say whether speculation pays, with which K, and where the time goes")
    doctor.add_argument(
        "--prompts", metavar="FILE", help="one a line, or a .json list (default: 4 from held-out files)"
    )
    add_drafter(doctor, DRAFTERS)
    doctor.add_argument("--temperature", type=temperature, default=0.0, help="0 is greedy (default: 0)")
    doctor.add_argument("--k-max", type=whole(1, MAX_K), default=8, metavar="K", help="largest K to try (default: 8)")
    doctor.add_argument("--max-new-tokens", type=whole(2), default=64, metavar="N", help="for each (default: 64)")
    doctor.add_argument("--repeats", type=whole(1), default=5, metavar="N", help="of every timing (default: 5)")
    doctor.add_argument("--seed", type=whole(0), default=0, help="of the random numbers (default: 0)")
    doctor.add_argument(
        "--agreement", type=share, metavar="A", help="synthetic acceptance, 0 to 1: for shapes without trained weights"
    )
    doctor.add_argument("--json", metavar="FILE", help="also write everything found")
    doctor.add_argument("--picture", metavar="FILE", help="also draw the budget: a .png where kaleido is, or a .html")
    add_pair(doctor)

    roofline = commands.add_parser("roofline", help="time passes over 1, 2, 4 ... rows, and say what they wait for")
    roofline.add_argument(
        "--rows",
        type=whole(1, 4096),
        nargs="+",
        default=[1, 2, 4, 8, 16, 32, 64],
        metavar="N",
        help="tokens in a pass (default: 1 2 4 8 16 32 64; 1 and 5 are always timed)",
    )
    roofline.add_argument("--context", type=whole(0), default=128, metavar="N", help="cached tokens (default: 128)")
    roofline.add_argument("--repeats", type=whole(1), default=11, metavar="N", help="interleaved rounds (default: 11)")
    roofline.add_argument("--json", metavar="FILE", help="also write everything measured, raw seconds included")
    roofline.add_argument("--picture", metavar="FILE", help="also draw it: a .png where kaleido is there, or a .html")
    model = roofline.add_argument_group(
        "model", "without --target: the pocket target, and a random Llama that is large"
    )
    add_pair_name(model)
    model.add_argument("--target", metavar="MODEL", help="hub id, local folder, or random:SHAPE (random:'Llama 8B')")
    add_machine(model, "default: 1 for the pocket target, all for others")

    targets = commands.add_parser("targets", help="measure all that is wanted of this library, and say what is met")
    targets.add_argument("--quick", action="store_true", help="fewer and shorter runs: wider spreads, a few minutes")
    targets.add_argument(
        "--only",
        choices=PARTS,
        nargs="+",
        default=(),
        metavar="PART",
        help=f"some of {', '.join(PARTS)} (default: all)",
    )
    targets.add_argument("--json", metavar="FILE", help="also write everything measured, after each part")
    add_pair(targets)
    return parser


def add_drafter(command: argparse.ArgumentParser, names: Sequence[str]) -> None:
    command.add_argument(
        "--drafter",
        choices=names,
        help="lookup copies from the text, exit drafts with half of the target's layers: both need no draft model "
        "(default: the draft model, or what is shipped with the --pair)",
    )


def add_pair_name(group: argparse._ArgumentGroup, pair: str = "pocket") -> None:
    group.set_defaults(default_pair=pair)
    told = f"smollm2 is a chat model, fetched once (93 MB; default: {pair})"
    group.add_argument("--pair", choices=PAIRS, help=told)


def add_pair(command: argparse.ArgumentParser, pair: str = "pocket") -> None:
    told = "the pocket pair that is built in" if pair == "pocket" else "a small chat model"
    group = command.add_argument_group("models", f"without --target and --draft: {told}")
    add_pair_name(group, pair)
    group.add_argument("--target", metavar="MODEL", help="hub id, local folder or random:SHAPE, whose text is wanted")
    group.add_argument("--draft", metavar="MODEL", help="the same for the small model that drafts")
    group.add_argument("--head", metavar="FOLDER", help="an EAGLE-3 head for the target, in place of a --draft")
    group.add_argument("--revision", metavar="REV", help="branch, tag or commit of the target on the hub")
    group.add_argument("--draft-revision", metavar="REV", help="the same for the draft")
    engines = ["auto", "eager", "lean", "graph"]
    group.add_argument("--engine", choices=engines, default="auto", help="what runs the forwards (default: auto)")
    add_machine(group, "default: 1 for the pocket pair")


def add_machine(group: argparse._ArgumentGroup, threads: str) -> None:
    """Where and how models run."""
    group.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: cpu)")
    group.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16", "float64"], help="default: float32 on a cpu"
    )
    group.add_argument(
        "--bits", type=int, choices=[8, 4], help="of the target's weights, on a cpu (default: as loaded)"
    )
    group.add_argument("--threads", type=whole(1), metavar="N", help=f"of the processor ({threads})")
