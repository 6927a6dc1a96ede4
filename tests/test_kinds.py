"""A chat model timed by kinds of questions: who takes part, what is divided by what, and what is held out."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from test_chat import chat_pair
from test_eagle import SOME, head_for
from test_named import cache, save  # noqa: F401 (a fixture)
from tiny import llama, tokenizer

import specdec_lite as sd
from specdec_lite import cli
from specdec_lite.bench.kinds import QUESTIONS, KindsContest, questions
from specdec_lite.bench.runners import Runner, own, theirs
from specdec_lite.bench.timing import Timings
from specdec_lite.loading.pair import Pair
from specdec_lite.training.conversations import KINDS, TEMPLATES


def test_there_are_four_questions_of_each_kind_that_no_draft_was_trained_on() -> None:
    assert tuple(QUESTIONS) == KINDS
    assert all(len(some) == 4 for some in QUESTIONS.values())
    passages = [text.split("{")[0] for text in TEMPLATES["passage"]["templates"]]
    asked = [question for some in QUESTIONS.values() for question in some]
    assert len(set(asked)) == 24
    for question in asked:
        assert not any(len(passage) > 8 and passage in question for passage in passages)
        for made in (TEMPLATES[kind] for kind in KINDS):
            words = [word for some in made["slots"].values() for word in some if len(word) > 12]
            assert not [word for word in words if word in question]


def contest() -> KindsContest:
    """Two turns over two kinds; seconds[name][turn][case]."""
    seconds = {"own naive": [[1.0, 1.0, 2.0], [2.0, 2.0, 4.0]], "own lookup K=2": [[1.0, 0.5, 1.0], [2.0, 1.0, 1.0]]}
    seconds["own lookup K=4"] = [[0.5, 0.5, 4.0], [1.0, 1.0, 4.0]]
    tokens = {name: [[8, 8, 8]] * 2 for name in seconds}
    runners = [Runner("own naive", "", lambda prompt, seed: [])]
    runners += [Runner("own lookup", f"K={k}", lambda prompt, seed: [], k) for k in (2, 4)]
    return KindsContest(0.0, ["chat", "chat", "code"], runners, Timings(seconds, tokens))


def test_ratios_are_formed_within_a_turn_and_a_kind() -> None:
    found = contest()
    assert found.ratio("own lookup K=2", "own naive", "chat").median == pytest.approx(4 / 3)
    assert found.ratio("own lookup K=2", "own naive", "code").median == pytest.approx(3)
    assert found.ratio("own lookup K=2", "own naive").median == pytest.approx((4 / 2.5 + 8 / 4) / 2)
    assert found.rate("own naive", "code").median == pytest.approx(3)


def test_the_best_k_is_of_all_kinds_or_of_one() -> None:
    found = contest()
    assert found.best("own lookup") == "own lookup K=2"
    assert found.best("own lookup", "chat") == "own lookup K=4"
    assert found.families == ["own naive", "own lookup"]


def chat_with_head() -> Pair:
    words = copy.deepcopy(tokenizer())
    words.chat_template = "{% for m in messages %}{{ m.content }}.{% endfor %}"
    target = sd.TransformersModel(llama(layers=3, context=400).float(), words, engine="lean")
    return Pair(target, None, words, head_for(target, SOME).float())


def test_everybody_makes_as_many_tokens() -> None:
    pair = chat_with_head()
    greedy, prompt = sd.Sampling(temperature=0), [5, 1, 7, 7, 2]
    made = [*own(pair, [2], 12, greedy, "head"), *own(pair, [2], 12, greedy, "lookup"), *theirs(pair, [2], 12, greedy)]
    names = [each.name for each in made]
    assert names == [
        *("own naive", "own head K=2", "own naive", "own lookup K=2"),
        *("transformers generate", "transformers lookup K=2"),
    ]
    texts = [list(each.run(prompt, 0)) for each in made]
    assert all(text == texts[0] for text in texts)
    assert len(texts[0]) == 12


def test_questions_are_asked_in_the_chats_own_form() -> None:
    pair = chat_pair(context=4000)
    pair.tokenizer.chat_template = "{% for m in messages %}ab{% endfor %}"
    assert questions(pair, 2) == {kind: [pair.tokenizer.encode("ab")] * 2 for kind in KINDS}


def test_a_bench_of_a_chat_model(
    cache: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save(cache / "smollm2", context=4000)
    few = ["--prompts", "1", "--repeats", "1", "--k", "2", "--max-new-tokens", "4", "--temperatures", "0"]
    assert cli.main(["bench", "--pair", "smollm2", *few, "--json", str(tmp_path / "kinds.json")]) == 0
    told = capsys.readouterr().out
    assert "own lookup K=2" in told
    assert "transformers lookup K=2" in told
    made = json.loads((tmp_path / "kinds.json").read_text())["contests"][0]
    assert made["kinds"] == list(KINDS)
    assert {tuple(map(tuple, each["tokens"])) for each in made["runners"]} == {((4,) * 6,)}
    assert cli.main(["bench", "--drafter", "lookup"]) == 2
    assert "--drafter is for chat models" in capsys.readouterr().err
