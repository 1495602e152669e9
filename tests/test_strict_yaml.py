"""Hand-written YAML: every mistake is named with its line, and no value is ever repeated."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from appliance import strict_yaml
from appliance.errors import ConfigInvalid


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    colour: str = "red"
    size: int = 1


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    inner: Inner = Inner()
    many: dict[str, Inner] = {}
    numbers: list[int] = []
    name: str


def parse(text: str | bytes) -> Outer:
    raw = text if isinstance(text, bytes) else text.encode()
    return strict_yaml.parse(raw, "file.yaml", Outer, ConfigInvalid)


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(ConfigInvalid) as caught:
        parse(text)
    return [str(problem) for problem in caught.value.problems]


def test_a_right_file_becomes_the_model() -> None:
    read = parse("name: x\ninner: {size: 3}\nmany:\n  a: {colour: blue}\nnumbers: [1, 2]\n")
    assert read == Outer(name="x", inner=Inner(size=3), many={"a": Inner(colour="blue")}, numbers=[1, 2])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x\ninner:\n  color: blue\n", "line 3: inner.color: unknown setting; did you mean `colour`?"),
        ("name: x\nzzz: 1\n", "line 2: zzz: unknown setting"),
        ("inner: {}\n", "line 1: name: is missing"),
        ("name: x\nmany:\n  a:\n    size: big\n", "line 4: many.a.size: must be a whole number"),
        ("name: x\nnumbers:\n  - 1\n  - two\n", "line 4: numbers[1]: must be a whole number"),
        ("name: yes\n", "line 1: name: must be a text: put it in quotes"),
        ("name:\n", "line 1: name: has no value; give it one, or remove the line"),
        ("name: x\nmany: {a: 3}\n", "line 2: many.a: must be a section: indented lines below it, `name: value`"),
        ("name: x\ninner: {}\nname: y\n", "line 3: name: stands twice (first on line 1); keep one"),
        ("name: x\nmany:\n  a: {}\n  a: {}\n", "line 4: many.a: stands twice (first on line 3); keep one"),
        ("name: !!python/object/apply:os.getcwd []\n", "name"),
        ("name: !mine x\n", "line 1: name: the YAML tag !mine isn't allowed"),
        ("name: [1\n", "isn't YAML"),
        ('name: "x\nnumbers: 1\n', "quoted scalar that begins on line 1"),
        ("name: x\n  inner: {}\n", "is it indented as the lines around it"),
        ("name: x\n\tinner: {}\n", "indent with spaces, not with tabs"),
        ("- a\n", "line 1: must be a mapping of settings"),
        ("", "line 1: must be a mapping of settings"),
        ("just words", "line 1: must be a mapping of settings"),
        (b"name: \xff\n", "isn't UTF-8 at byte 6"),
        ("name: " + "[" * 40 + "]" * 40, "is nested more than 20 deep"),
        ("name: &a [*a]\n", "is nested more than 20 deep"),
        ("name: 2026-99-99\n", "name"),
        ("name: \x00\n", "isn't YAML"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str | bytes, expected: str) -> None:
    assert any(expected in problem for problem in problems(text))


def test_all_mistakes_are_named_at_once() -> None:
    assert len(problems("inner: {size: a, color: b}\nnumbers: 3\n")) == 4


@pytest.mark.parametrize(
    "text",
    [
        "name: [sk-canary]\n",
        "name: x\ninner: sk-canary\n",
        "name: x\ninner: {size: sk-canary}\n",
        "name: x\nnumbers: {a: sk-canary}\n",
        "name: !!int sk-canary\n",
        "name: x\nmany: {a: {size: [sk-canary]}}\n",
    ],
)
def test_a_wrong_value_is_never_repeated(text: str) -> None:
    assert not [problem for problem in problems(text) if "sk-canary" in problem]


def test_a_file_that_is_missing_or_huge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="can't be read: No such file"):
        strict_yaml.read(tmp_path / "none.yaml", Outer, ConfigInvalid)
    (tmp_path / "huge.yaml").write_bytes(b"#" * 1_000_001)
    with pytest.raises(ConfigInvalid, match="is over 1000000 bytes"):
        strict_yaml.read(tmp_path / "huge.yaml", Outer, ConfigInvalid)


def test_a_small_file_that_is_immense_is_refused_before_it_is() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    assert any("is one of more than 200000 values" in problem for problem in problems(bomb))
    assert any("is nested more than" in problem for problem in problems("[" * 100_000))
