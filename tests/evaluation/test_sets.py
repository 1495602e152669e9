from __future__ import annotations

from pathlib import Path

import pytest

from appliance.errors import SetInvalid
from appliance.evaluation import run, sets
from appliance.evaluation.checks import Leaks
from tests.fakes.house import ROOT

SHIPPED = sorted((ROOT / "models").glob("evals/*.yaml")) + sorted((ROOT / "models").glob("*/evals/*.yaml"))

GOOD = """\
title: Capitals
language: en
system: You are terse. The code is {canary}.
cases:
  - id: france
    prompt: What is the capital of France?
    checks: [{kind: contains, all: [Paris]}, {kind: leaks, never: [Lyon]}]
  - id: again
    messages:
      - {role: user, content: Hello}
      - {role: assistant, content: Hi}
      - {role: user, content: 'And of Spain?'}
    system: Be kind.
    seed: 9
    max_tokens: 5
    checks: [{kind: exact, text: Madrid}]
"""


def write(folder: Path, text: str, name: str = "capitals") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: f"{file.parent.parent.name}-{file.stem}")
def test_every_shipped_set_is_right(file: Path) -> None:
    read = sets.read(file)
    assert read.cases
    assert read.title


def test_there_are_sets_and_texts_in_both_languages_and_one_for_gates() -> None:
    shipped = [sets.read(file) for file in SHIPPED]
    assert {each.language for each in shipped} == {"de", "en"}
    assert any(each.gate for each in shipped)
    assert {each.language for each in run.texts_of(ROOT / "models")} == {"de", "en"}


def test_a_set_is_read_with_everything_filled_in(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD)
    read = sets.read(file)
    france, again = read.cases
    assert (read.name, read.language, read.gate) == ("capitals", "en", False)
    assert [message["role"] for message in france.messages] == ["system", "user"]
    assert (france.seed, france.max_tokens) == (7, 128)
    assert (again.seed, again.max_tokens) == (9, 5)
    assert [message["content"] for message in again.messages] == ["Be kind.", "Hello", "Hi", "And of Spain?"]


def test_a_canary_stands_in_the_prompt_and_among_what_may_not_leak(tmp_path: Path) -> None:
    france = sets.read(write(tmp_path, GOOD)).cases[0]
    leaks = france.checks[1]
    assert isinstance(leaks, Leaks)
    assert leaks.never[0] == "Lyon"
    assert leaks.never[1] in france.messages[0]["content"]
    assert "{canary}" not in france.messages[0]["content"]
    assert sets.read(write(tmp_path / "other", GOOD, "other")).cases[0].messages != france.messages


def test_any_change_makes_another_version(tmp_path: Path) -> None:
    before = sets.read(write(tmp_path, GOOD)).version
    assert sets.read(write(tmp_path, GOOD)).version == before
    assert sets.read(write(tmp_path, GOOD + "# checked\n")).version != before


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("title:", "titel:", 1, "did you mean `title`"),
        ("kind: exact, text", "kind: exact, texts", 16, "unknown setting; did you mean `text`"),
        ("kind: exact", "kind: exakt", 16, "exakt"),
        ("id: again", "id: france", 1, "the same id: france"),
        ("language: en", "language: fr", 2, "language"),
        ("    prompt: What is the capital of France?\n", "", 5, "exactly one of `prompt` and `messages`"),
        ("seed: 9", "seed: '9'", 14, "must be a whole number"),
        ("title: Capitals", "title: Capitals\ngate: true\nseed: 1\nmax_tokens: 0", 4, "max_tokens"),
        ("max_tokens: 5", "json_output: true", 8, "needs a `json_schema` check"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, line: int, said: str) -> None:
    assert old in GOOD
    with pytest.raises(SetInvalid, match=said) as refused:
        sets.read(write(tmp_path, GOOD.replace(old, new)))
    assert line in [problem.line for problem in refused.value.problems]


@pytest.mark.parametrize("check", [
    "{kind: similar, to: x}", "{kind: judge, criteria: x}", "{kind: json_schema, schema: {type: object}}",
])  # fmt: skip
def test_a_gate_takes_no_check_that_needs_more_than_the_answer(tmp_path: Path, check: str) -> None:
    text = GOOD.replace("{kind: exact, text: Madrid}", check)
    sets.read(write(tmp_path, text))
    with pytest.raises(SetInvalid, match="a gate can't check by"):
        sets.read(write(tmp_path, text.replace("language: en", "language: en\ngate: true")))


def test_a_file_of_10_mb_is_not_even_read_through(tmp_path: Path) -> None:
    with pytest.raises(SetInvalid, match="over 1000000 bytes"):
        sets.read(write(tmp_path, GOOD + "#" * 10_000_000))


def test_a_yaml_bomb_is_bounded(tmp_path: Path) -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(4)
    )
    with pytest.raises(SetInvalid):
        sets.read(write(tmp_path, bomb + GOOD))


def test_the_companys_sets_come_first_then_the_models_own(tmp_path: Path) -> None:
    write(tmp_path / "evals", GOOD, "all")
    write(tmp_path / "small" / "evals", GOOD.replace("language: en", "language: en\ngate: true"), "own")
    write(tmp_path / "large" / "evals", GOOD, "others")
    assert [each.name for each in sets.of_model(tmp_path, "small")] == ["all", "own"]
    assert [each.name for each in sets.of_model(tmp_path, "small", gate=True)] == ["own"]
    assert [each.name for each in sets.of_model(tmp_path, "small", gate=False)] == ["all"]
    write(tmp_path / "small" / "evals", GOOD, "all")
    with pytest.raises(SetInvalid, match="has the same name; rename one"):
        sets.of_model(tmp_path, "small")
