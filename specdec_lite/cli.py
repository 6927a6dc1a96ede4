"""The command `specdec`. Parses arguments only; a command's code, and torch, load when it runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from .loading.pair import Pair

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
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = commands.add_parser("demo", help="decode one text naively and speculatively, and compare")
    demo.set_defaults(run=run_demo)
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
    chat.set_defaults(run=run_chat)
    add_drafter(chat, DRAFTERS)
    chat.add_argument("--show", action="store_true", help="mark accepted, corrected and bonus tokens")
    chat.add_argument("--k", type=whole(1, MAX_K), default=4, help="tokens drafted a round, 1 to 16 (default: 4)")
    chat.add_argument("--temperature", type=temperature, default=0.0, help="0 is greedy (default: 0)")
    chat.add_argument("--seed", type=whole(0), default=0, help="of the random numbers (default: 0)")
    chat.add_argument("--max-new-tokens", type=whole(1), default=512, metavar="N", help="an answer (default: 512)")
    add_pair(chat, pair="smollm2")

    bench = commands.add_parser("bench", help="time this library against transformers, for several K")
    bench.set_defaults(run=run_bench)
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
    doctor.set_defaults(run=run_doctor)
    doctor.add_argument(
        "--prompts", metavar="FILE", help="one a line, or a .json list (default: 4 from held-out files)"
    )
    add_drafter(doctor, ("model", "lookup", "exit"))
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
    roofline.set_defaults(run=run_roofline)
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
    targets.set_defaults(run=run_targets)
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
    group.add_argument("--draft", metavar="MODEL", help="the same for the small model that guesses")
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


def name_target(args: argparse.Namespace) -> bool:
    """Let `--pair` say what the target is. -> whether it did

    Raises:
        ValueError: both say it.
    """
    given = args.target or getattr(args, "draft", None)
    if args.pair and given:
        raise ValueError(f"--pair {args.pair} names the models: leave out --target and --draft")
    pair = args.pair or (None if given else args.default_pair)
    if pair in (None, "pocket"):
        return False
    args.target = pair
    return True


def load(args: argparse.Namespace) -> Pair:
    """Load the pair quietly, after the arguments that need torch are checked.

    Raises:
        ValueError, OSError: a device, a model or a pair of them that cannot be used.
    """
    import torch

    if not name_target(args) and args.target and not args.draft and getattr(args, "drafter", None) in (None, "model"):
        lookup = ", or --drafter lookup to draft from the text itself" if hasattr(args, "drafter") else ""
        raise ValueError(f"--target {args.target} needs a --draft to draft for it{lookup}")
    quiet()
    threads = args.threads or (1 if is_pocket(args) else None)  # a small model's threads wait for each other
    if threads:
        torch.set_num_threads(threads)
    from .loading.pair import load_pair

    pair = load_pair(
        args.target, args.draft, revision=args.revision, draft_revision=args.draft_revision,
        device=args.device, dtype=args.dtype, engine=args.engine, bits=args.bits,
    )  # fmt: skip
    if getattr(args, "drafter", "") is None:
        args.drafter = "model" if pair.draft else "head" if pair.head else "lookup"
    return pair


def quiet() -> None:
    """Keep transformers' warnings off the screen, and its bars out of a file."""
    import transformers

    transformers.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers.logging.disable_progress_bar()


def is_pocket(args: argparse.Namespace) -> bool:
    return args.target is None and args.draft is None


def run_demo(args: argparse.Namespace) -> None:
    pair = load(args)
    from .bench.demo import run
    from .bench.race import RaceSettings

    names = ("prompt", "drafter", "k", "temperature", "seed", "max_new_tokens", "repeats")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    run(pair, RaceSettings(**given), pocket=is_pocket(args), as_json=args.json)


def run_chat(args: argparse.Namespace) -> None:
    pair = load(args)
    from .bench.chat import ChatSettings, run

    names = ("drafter", "k", "temperature", "seed", "max_new_tokens", "show")
    run(pair, ChatSettings(**{name: getattr(args, name) for name in names}))


def check_folder(option: str, file: str | None) -> None:
    """Refuse a file that could not be written, before anything is measured."""
    if file and os.path.dirname(file) and not os.path.isdir(os.path.dirname(file)):
        raise ValueError(f"{option} {file}: there is no folder {os.path.dirname(file)}")


def check_picture(file: str | None) -> None:
    """The same for a picture, which needs plotly."""
    from importlib.util import find_spec

    check_folder("--picture", file)
    if file and not find_spec("plotly"):
        raise ValueError("--picture needs plotly: pip install specdec-lite[notebooks], or leave it out")


def say(text: str) -> None:
    from .bench.console import Ink

    Ink(sys.stdout).paragraph("", text)


def run_bench(args: argparse.Namespace) -> None:
    check_folder("--json", args.json)
    if args.batch:
        run_batches(args)
        return
    drafters = args.drafter
    del args.drafter  # what `load` knows is one drafter
    pair = load(args)
    if getattr(pair.tokenizer, "chat_template", None):
        run_kinds(args, pair, drafters)
        return
    if drafters:
        raise ValueError("--drafter is for chat models: leave it out")
    from .bench.compare import BenchSettings, run

    settings = BenchSettings(
        ks=tuple(sorted(set(args.k or [1, 2, 3, 4, 5, 6, 8]))),
        temperatures=tuple(dict.fromkeys(args.temperatures or [0.0, 1.0])),
        prompts=args.prompts,
        max_new_tokens=args.max_new_tokens,
        repeats=args.repeats,
        only=args.only,
    )
    run(pair, settings, json_file=args.json)


def run_kinds(args: argparse.Namespace, pair: Pair, drafters: Sequence[str] | None) -> None:
    """`bench` of a chat model."""
    from .bench.kinds import KindsSettings, run

    there = ["model"] * (pair.draft is not None) + ["head"] * (pair.head is not None) + ["lookup"]
    settings = KindsSettings(
        drafters=drafters or there,
        ks=tuple(sorted(set(args.k or [1, 2, 3, 4, 6]))),
        temperatures=tuple(dict.fromkeys(args.temperatures or [0.0, 1.0])),
        per_kind=args.prompts,
        max_new_tokens=args.max_new_tokens,
        repeats=args.repeats,
        only=args.only,
    )
    run(pair, settings, args.json)


def run_batches(args: argparse.Namespace) -> None:
    """`bench --batch`."""
    if args.only == "transformers" or len(set(args.temperatures or [0.0])) > 1:
        raise ValueError("--batch times this library alone, at one temperature: leave out --only, give one temperature")
    pair = load(args)
    from .bench.batches import BatchSettings, run

    settings = BatchSettings(
        batches=tuple(sorted(set(args.batch))),
        ks=tuple(sorted(set(args.k or [1, 2, 4]))),
        temperature=(args.temperatures or [0.0])[0],
        max_new_tokens=args.max_new_tokens,
        repeats=args.repeats,
    )
    run(pair, settings, json_file=args.json)


def run_doctor(args: argparse.Namespace) -> None:
    check_folder("--json", args.json)
    check_picture(args.picture)
    if args.drafter not in (None, "model") and args.agreement is not None:
        raise ValueError(
            f"--agreement sets how often a draft model's guesses are kept: leave out --drafter {args.drafter}"
        )
    from .bench.doctor import DoctorSettings, check_agreement, drafter, run

    check_agreement((args.target, args.draft), args.agreement)

    names = ("k_max", "max_new_tokens", "temperature", "repeats", "seed")
    settings = DoctorSettings(**{name: getattr(args, name) for name in names})
    pair = load(args)
    args.drafter = "lookup" if args.drafter == "head" else args.drafter  # which the doctor does not know yet
    found = run(pair, drafter(pair, args.drafter, args.agreement), settings, args.prompts, args.json)
    if args.picture:
        from .viz.budget import budget_figure
        from .viz.roofline import save

        say(save(budget_figure(found), args.picture))


def run_roofline(args: argparse.Namespace) -> None:
    check_folder("--json", args.json)
    check_picture(args.picture)
    quiet()
    from .bench.roofline import RooflineSettings, run

    name_target(args)
    names = ("target", "context", "threads", "device", "dtype", "bits", "repeats")
    settings = RooflineSettings(rows=tuple(sorted(set(args.rows))), **{name: getattr(args, name) for name in names})
    models = run(settings, json_file=args.json)
    if args.picture:
        from .viz.roofline import panel, roofline_figure, save

        say(save(roofline_figure([panel(each) for each in models]), args.picture))


def run_targets(args: argparse.Namespace) -> None:
    if args.bits:
        raise ValueError("targets are for weights as they are loaded: leave out --bits")
    check_folder("--json", args.json)
    quiet()
    from .bench.targets import TargetsSettings, run

    name_target(args)
    names = ("target", "draft", "revision", "draft_revision", "device", "dtype", "engine", "threads", "quick")
    settings = TargetsSettings(**{name: getattr(args, name) for name in names})
    run(settings, args.only, args.json, args.argv)


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. -> exit code: 0, 2 after a bad value, 130 after an interrupt."""
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser().parse_args(argv)
    args.argv = argv
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
