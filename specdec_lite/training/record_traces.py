"""Record the runs that the first notebook's slider shows.

    python -m specdec_lite.training.record_traces [--repeats 5]

The pocket pair decodes one prompt naively and at k = 1 to 8, greedy and at temperature 1. The
runners take turns; `recorded.py` says what is kept of them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from statistics import median

from tqdm.auto import tqdm

from ..bench.machine import environment
from ..bench.timing import interleave
from ..decoding import Decoded, autoregressive, speculative
from ..drafters.model import ModelDrafter
from ..loading.pair import Pair, load_pair
from ..pocket.prompts import BUILT_IN
from ..pocket.recorded import FOLDER, pack
from ..sampling.distributions import Sampling
from ..stopping import Stop

KS = range(1, 9)
NEW_TOKENS = 64


def record(
    pair: Pair,
    prompt: str,
    temperature: float,
    repeats: int,
    ks: Iterable[int] = KS,
    new_tokens: int = NEW_TOKENS,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict:
    """One file's content. Nothing stops early, so all runs write the same number of tokens."""
    common = dict(max_new_tokens=new_tokens, sampling=Sampling(temperature=temperature), stop=Stop(), seed=seed)
    drafter = ModelDrafter(pair.draft)
    seen: dict[int, list[Decoded]] = {k: [] for k in (0, *ks)}

    def runner(k: int) -> Callable[[int, int], int]:
        def decode(case: int, turn: int) -> int:
            if k == 0:
                seen[k].append(autoregressive(pair.target, prompt, **common))
            else:
                seen[k].append(speculative(pair.target, drafter, prompt, k=k, **common))
            return new_tokens

        return decode

    interleave({str(k): runner(k) for k in seen}, rounds=repeats, warm_up=1, progress=progress)
    seen = {k: made[1:] for k, made in seen.items()}  # without the warm-up
    runs = {
        k: pack(made[-1].trace, _seconds(made), round(median(m.seconds for m in made), 5)) for k, made in seen.items()
    }
    rounds = [each for made in seen.values() for each in made[-1].trace.rounds]
    used = {token for each in rounds for token in (*each.drafted, each.token)}
    return {
        "prompt": prompt,
        "prompt_tokens": seen[0][-1].trace.prompts[0],
        "temperature": temperature,
        "seed": seed,
        "machine": environment(),
        "date": date.today().isoformat(),
        "pieces": {token: pair.tokenizer.decode([token]) for token in sorted(used)},
        "runs": runs,
    }


def _seconds(made: list[Decoded]) -> dict[str, float]:
    """Medians over all rounds of all repeats: one draft forward, verifying, the rest."""
    rounds = [each for run in made for each in run.trace.rounds]
    most = max(len(each.drafted) for each in rounds)
    full = [each for each in rounds if len(each.drafted) == most]
    parts = {
        "draft": [each.seconds["draft"] / max(1, len(each.drafted)) for each in full],
        "verify": [each.seconds["verify"] for each in full],
        "rest": [each.seconds["rest"] for each in full],
    }
    return {name: round(median(values), 7) for name, values in parts.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each runner (default: 5)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to (default: inside the package)")
    options = parser.parse_args(arguments)
    pair = load_pair()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, temperature in (("greedy", 0.0), ("temperature_1", 1.0)):
        with tqdm(desc=name, unit="run") as bar:
            content = record(pair, BUILT_IN[0], temperature, options.repeats, progress=lambda done, of: _move(bar, of))
        path = options.out / f"{name}.json"
        path.write_text(json.dumps(content, separators=(",", ":"), ensure_ascii=True) + "\n", encoding="utf-8")
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def _move(bar: tqdm, of: int) -> None:
    bar.total = of
    bar.update()


if __name__ == "__main__":
    main()
