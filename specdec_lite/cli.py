"""The command `specdec`. A command's code, and torch, load when it runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .arguments import build_parser

if TYPE_CHECKING:
    from .loading.pair import Pair


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

    wants_model = getattr(args, "drafter", None) in (None, "model")
    if not name_target(args) and args.target and not (args.draft or args.head) and wants_model:
        lookup = ", or --drafter lookup to draft from the text itself" if hasattr(args, "drafter") else ""
        raise ValueError(f"--target {args.target} needs a --draft to draft for it{lookup}")
    quiet()
    threads = args.threads or (1 if is_pocket(args) else None)  # a small model's threads wait for each other
    if threads:
        torch.set_num_threads(threads)
    from .loading.pair import load_pair

    pair = load_pair(
        args.target, args.draft, head=args.head, revision=args.revision, draft_revision=args.draft_revision,
        device=args.device, dtype=args.dtype, engine=args.engine, bits=args.bits,
    )  # fmt: skip
    if getattr(args, "drafter", "") is None:
        args.drafter = pair.drafters[0]
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
    if pair.chats:
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

    settings = KindsSettings(
        drafters=drafters or pair.drafters,
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
    if args.drafter:
        raise ValueError("--batch times a draft model: leave out --drafter")
    pair = load(args)
    if pair.draft is None:
        raise ValueError("--batch times a draft model, and this pair has none: give a --draft")
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
            f"--agreement sets how often a draft model's tokens are accepted: leave out --drafter {args.drafter}"
        )
    from .bench.doctor import DoctorSettings, check_agreement, drafter, run

    check_agreement((args.target, args.draft), args.agreement)

    names = ("k_max", "max_new_tokens", "temperature", "repeats", "seed")
    settings = DoctorSettings(**{name: getattr(args, name) for name in names})
    pair = load(args)
    if args.agreement is not None and pair.draft is None:
        raise ValueError("--agreement sets how often a draft model's tokens are accepted, and this pair has none")
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
    if args.head:
        raise ValueError("targets are for a draft model: leave out --head")
    check_folder("--json", args.json)
    quiet()
    from .bench.targets import TargetsSettings, run

    name_target(args)
    names = ("target", "draft", "revision", "draft_revision", "device", "dtype", "engine", "threads", "quick")
    settings = TargetsSettings(**{name: getattr(args, name) for name in names})
    run(settings, args.only, args.json, args.argv)


RUN = {
    "demo": run_demo,
    "chat": run_chat,
    "bench": run_bench,
    "doctor": run_doctor,
    "roofline": run_roofline,
    "targets": run_targets,
}


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
        RUN[args.command](args)
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
