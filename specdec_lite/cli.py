"""The command `specdec`. Parses arguments only; a command's code, and torch, load when it runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from .loading import Pair

MAX_K = 16  # as decoding.MAX_K, which would load torch


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def whole(least: int, most: int | None = None):
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


def build_parser() -> Parser:
    parser = Parser(prog="specdec", description="Speculative decoding: see it, time it.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = commands.add_parser("demo", help="decode one text naively and speculatively, and compare")
    demo.set_defaults(run=run_demo)
    demo.add_argument("--prompt", help="text to continue (default: the beginning of a Python class)")
    demo.add_argument("--k", type=whole(1, MAX_K), default=4, help="tokens drafted a round, 1 to 16 (default: 4)")
    demo.add_argument("--temperature", type=temperature, default=0.0, help="0 is greedy (default: 0)")
    demo.add_argument("--seed", type=whole(0), default=0, help="of the random numbers (default: 0)")
    demo.add_argument("--max-new-tokens", type=whole(1), default=128, metavar="N", help="length (default: 128)")
    demo.add_argument("--repeats", type=whole(1), default=5, metavar="N", help="timed runs of each (default: 5)")
    demo.add_argument("--json", action="store_true", help="print the numbers as JSON and nothing else")
    add_pair(demo)

    bench = commands.add_parser("bench", help="time this library against transformers, for several K")
    bench.set_defaults(run=run_bench)
    bench.add_argument(
        "--k",
        type=whole(1, MAX_K),
        nargs="+",
        default=[1, 2, 3, 4, 5, 6, 8],
        metavar="K",
        help="values of K to try (default: 1 2 3 4 5 6 8)",
    )
    bench.add_argument(
        "--temperatures", type=temperature, nargs="+", default=[0.0, 1.0], metavar="T", help="default: 0 1"
    )
    bench.add_argument("--prompts", type=whole(1), default=4, metavar="N", help="from held-out files (default: 4)")
    bench.add_argument("--max-new-tokens", type=whole(1), default=64, metavar="N", help="for each (default: 64)")
    bench.add_argument("--repeats", type=whole(1), default=5, metavar="N", help="interleaved rounds (default: 5)")
    bench.add_argument("--only", choices=["own", "transformers"], help="leave the other one out")
    bench.add_argument("--json", metavar="FILE", help="also write everything measured, raw seconds included")
    add_pair(bench)
    return parser


def add_pair(command: argparse.ArgumentParser) -> None:
    pair = command.add_argument_group("models", "without --target and --draft: the pocket pair that is built in")
    pair.add_argument("--target", metavar="MODEL", help="hub id or local folder of the model whose text is wanted")
    pair.add_argument("--draft", metavar="MODEL", help="the same for the small model that guesses")
    pair.add_argument("--revision", metavar="REV", help="branch, tag or commit of the target on the hub")
    pair.add_argument("--draft-revision", metavar="REV", help="the same for the draft")
    pair.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: cpu)")
    pair.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16", "float64"], help="default: float32 on a cpu"
    )
    pair.add_argument(
        "--engine", choices=["auto", "eager", "lean"], default="auto", help="what runs the forwards (default: auto)"
    )
    pair.add_argument("--threads", type=whole(1), metavar="N", help="of the processor (default: 1 for the pocket pair)")


def load(args: argparse.Namespace) -> Pair:
    """Load the pair quietly, after the arguments that need torch are checked.

    Raises:
        ValueError, OSError: a device, a model or a pair of them that cannot be used.
    """
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers.logging.disable_progress_bar()
    threads = args.threads or (1 if is_pocket(args) else None)  # a small model's threads wait for each other
    if threads:
        torch.set_num_threads(threads)
    from .loading import load_pair

    return load_pair(
        args.target, args.draft, revision=args.revision, draft_revision=args.draft_revision,
        device=args.device, dtype=args.dtype, engine=args.engine,
    )  # fmt: skip


def is_pocket(args: argparse.Namespace) -> bool:
    return args.target is None and args.draft is None


def run_demo(args: argparse.Namespace) -> None:
    pair = load(args)
    from .demo import run
    from .race import Settings

    names = ("prompt", "k", "temperature", "seed", "max_new_tokens", "repeats")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    run(pair, Settings(**given), pocket=is_pocket(args), as_json=args.json)


def run_bench(args: argparse.Namespace) -> None:
    if args.json and os.path.dirname(args.json) and not os.path.isdir(os.path.dirname(args.json)):
        raise ValueError(f"--json {args.json}: there is no folder {os.path.dirname(args.json)}")
    pair = load(args)
    from .bench import Settings, run

    settings = Settings(
        ks=tuple(sorted(set(args.k))),
        temperatures=tuple(dict.fromkeys(args.temperatures)),
        prompts=args.prompts,
        max_new_tokens=args.max_new_tokens,
        repeats=args.repeats,
        only=args.only,
    )
    run(pair, settings, json_file=args.json)


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. -> exit code: 0, 2 after a bad value, 130 after an interrupt."""
    args = build_parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a console that lacks a character shows a question mark
            stream.reconfigure(errors="replace")
    try:
        args.run(args)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:  # `specdec demo | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        print(f"specdec: {first_line(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
