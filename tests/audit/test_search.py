"""Looking records up: whatever is asked, the answer is what reading the whole log would give."""

from __future__ import annotations

import asyncio
import csv
import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.accounts.statement import csv_lines
from appliance.audit import search, segments, table
from appliance.audit.journal import Journal
from appliance.audit.question import Question, seq_of
from appliance.audit.record import Chain, Kind, moment
from appliance.audit.retention import Line, in_place_of
from appliance.audit.search import Search
from appliance.audit.segments import listed
from appliance.config.audit import Audit
from appliance.errors import AuditFailed, Overloaded

DAY = 86_400.0
START = 1_795_305_600.0  # 2026-11-22T00:00:00Z
ANNA, BEN = "p_" + "a" * 24, "p_" + "b" * 24


def intent(n: int) -> dict[str, Any]:
    return {"request": f"req_{n}", "subject": ANNA if n % 3 else BEN, "model": "chat", "role": "user", "sealed": "c2"}


def body(n: int) -> tuple[Kind, dict[str, Any]]:
    """The record of the number `n`, of one kind after the other."""
    match n % 5:
        case 0:
            return Kind.INTENT, intent(n)
        case 1:
            return Kind.OUTCOME, {"intent": n - 1, "outcome": "served", "status": 200, "code": "stopping"}
        case 2:
            return Kind.REFUSAL, {"request": f"req_{n}", "subject": BEN, "code": "not_allowed", "team": "Ein, kauf"}
        case 3:
            by = {"subject": BEN, "role": "admin", "sealed": "c2"}
            return Kind.ACT, {"act": "keys.create", "phase": "intent", "by": by, "target": {"subject": ANNA}}
    return Kind.INCIDENT, {"incident": "audit_unwritable", "seconds": n}


class Log:
    """A log in a folder, made without a journal: segments by number of records, some of them compressed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.chain = Chain()
        self.lines: list[bytes] = []

    def segment(self, records: int, at: Callable[[int], float] = lambda n: START + n, *, closed: bool = True) -> None:
        first = self.chain.seq + 1
        lines = [self.chain.append(*body(n), at(n)) for n in range(first, first + records)]
        self.put(first, lines, closed=closed)
        self.lines += lines

    def put(self, first: int, lines: Sequence[bytes], *, closed: bool, torn: bytes = b"") -> Path:
        content = b"".join(line + b"\n" for line in lines) + torn
        file = self.folder / (f"{first:012d}.jsonl.gz" if closed else f"{first:012d}.jsonl")
        file.write_bytes(gzip.compress(content) if closed else content)
        return file


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Three days: two closed segments and an open one."""
    made = Log(tmp_path)
    made.segment(40, lambda n: START - DAY + n)
    made.segment(30, lambda n: START + n)
    made.segment(35, lambda n: START + DAY + n, closed=False)
    return made


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few lines, so that each test crosses many of their borders."""
    monkeypatch.setattr(search, "_BLOCK", 700)
    monkeypatch.setattr(search, "_WINDOW", 1500)


def found(folder: Path, question: Question, *, newest_first: bool = False) -> list[int | None]:
    reader = Search(folder)
    return [seq_of(line) for step in reader.steps(question, newest_first=newest_first) for line in step.lines]


def brute(log: Log, question: Question) -> list[int]:
    """The same question, answered by parsing every line."""
    answer = []
    for record in map(json.loads, log.lines):
        parts = [record["body"], record["body"].get("by", {}), record["body"].get("target", {})]
        if (
            question.least <= record["seq"] <= question.most
            and question.since <= record["at"] < question.until
            and question.kind in (None, record["kind"])
            and all(any(part.get(name) == value for part in parts) for name, value in question.fields.items())
        ):
            answer.append(record["seq"])
    return answer


QUESTIONS = [
    Question(),
    Question(kind=Kind.INTENT),
    Question(fields={"subject": ANNA}),
    Question(fields={"subject": BEN, "role": "admin"}),
    Question(fields={"request": "req_100"}),
    Question(fields={"team": "Ein, kauf"}, kind=Kind.REFUSAL),
    Question(fields={"intent": 10}),
    Question(fields={"intent": 1}),
    Question(fields={"act": "keys.create"}, least=40, most=80),
    Question(fields={"incident": "audit_unwritable"}),
    Question(fields={"code": "stopping", "outcome": "served"}),
    Question(fields={"model": "nothing"}),
    Question(since=moment(START), until=moment(START + 50)),
    Question(since=moment(START + DAY)),
    Question(until=moment(START)),
    Question(since="3000"),
    Question(least=41, most=70),
    Question(least=104),
    Question(least=500),
]


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
@pytest.mark.usefixtures("small")
def test_it_finds_what_reading_all_would_find(log: Log, question: Question) -> None:
    wanted = brute(log, question)
    assert found(log.folder, question) == wanted
    assert found(log.folder, question, newest_first=True) == wanted[::-1]


@pytest.mark.parametrize(("block", "window"), [(1, 1), (1, 700), (13, 50), (299, 301), (301, 299), (4096, 1)])
@pytest.mark.parametrize("question", [Question(), Question(kind=Kind.ACT), Question(least=17, most=83)], ids=str)
def test_where_blocks_end_makes_no_difference(
    log: Log, monkeypatch: pytest.MonkeyPatch, block: int, window: int, question: Question
) -> None:
    monkeypatch.setattr(search, "_BLOCK", block)
    monkeypatch.setattr(search, "_WINDOW", window)
    wanted = brute(log, question)
    assert found(log.folder, question) == wanted
    assert found(log.folder, question, newest_first=True) == wanted[::-1]


def test_the_questions_tell_records_apart(log: Log) -> None:
    counts = [len(brute(log, question)) for question in QUESTIONS]
    assert counts[0] == 105
    assert len(set(counts)) >= 10
    assert sum(count > 0 for count in counts) == len(counts) - 4


TEXTS = st.text(st.sampled_from('ab"\\{},:\n\u2028ü€\U0001f600='), max_size=12)


@given(values=st.lists(TEXTS, min_size=1, max_size=12), asked=TEXTS)
@settings(max_examples=60)
def test_no_text_hides_a_record_or_shows_another(
    tmp_path_factory: pytest.TempPathFactory, values: list[str], asked: str
) -> None:
    """Names that look like the log's own writing, even."""
    made = Log(tmp_path_factory.mktemp("log"))
    bodies = [{"model": "m", "team": value, "x": {"team": asked}} for value in values]
    lines = [made.chain.append(Kind.INTENT, body, START) for body in bodies]
    made.put(1, lines, closed=len(values) % 2 == 0)
    wanted = [number for number, value in enumerate(values, 1) if value == asked]
    assert found(made.folder, Question(fields={"team": asked})) == wanted
    assert found(made.folder, Question(fields={"team": asked}), newest_first=True) == wanted[::-1]


def pages(reader: Search, question: Question, limit: int, *, newest_first: bool) -> Iterator[list[int | None]]:
    while True:
        page = reader.page(question, limit, newest_first=newest_first)
        yield [seq_of(line) for line in page.lines]
        if page.next is None:
            return
        question = replace(question, **({"most": page.next - 1} if newest_first else {"least": page.next + 1}))


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("limit", [1, 7, 105, 1000])
@pytest.mark.parametrize("kind", [None, Kind.ACT])
@pytest.mark.usefixtures("small")
def test_pages_join_without_a_gap_and_without_a_record_twice(
    log: Log, limit: int, kind: Kind | None, *, newest_first: bool
) -> None:
    wanted = brute(log, Question(kind=kind))
    told = list(pages(Search(log.folder), Question(kind=kind), limit, newest_first=newest_first))
    assert all(len(page) <= limit for page in told)
    assert [seq for page in told for seq in page] == (wanted[::-1] if newest_first else wanted)


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.usefixtures("small")
def test_a_page_looks_at_a_bounded_number_of_lines(
    log: Log, monkeypatch: pytest.MonkeyPatch, *, newest_first: bool
) -> None:
    monkeypatch.setattr(search, "_PAGE_LINES", 20)
    question = Question(fields={"request": "req_100" if not newest_first else "req_5"})
    counts = [len(page) for page in pages(Search(log.folder), question, 10, newest_first=newest_first)]
    assert sum(counts) == 1
    assert 4 <= len(counts) <= 7, "an empty page tells where to go on"


def test_a_page_holds_a_bounded_number_of_bytes_but_one_record_at_least(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_PAGE_BYTES", 600)
    told = list(pages(Search(log.folder), Question(), 1000, newest_first=False))
    assert [seq for page in told for seq in page] == list(range(1, 106))
    assert max(map(len, told)) in (2, 3)
    monkeypatch.setattr(search, "_PAGE_BYTES", 1)
    assert [len(page) for page in pages(Search(log.folder), Question(), 1000, newest_first=True)] == [1] * 105


def test_order_is_by_number_when_the_clock_was_set_back(tmp_path: Path) -> None:
    made = Log(tmp_path)
    made.segment(10, lambda n: START + DAY + n)
    made.segment(10, lambda n: START - 3 * DAY + n)
    made.segment(10, lambda n: START + 2 * DAY - n, closed=False)
    assert found(tmp_path, Question()) == list(range(1, 31))
    early = Question(until=moment(START))
    assert found(tmp_path, early) == brute(made, early) == list(range(11, 21))


@pytest.mark.usefixtures("small")
def test_segments_of_other_days_are_not_read(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.segment(10, lambda n: START + 9 * DAY + n, closed=False)
    reader = Search(log.folder)
    question = Question(since=moment(START + 9 * DAY))
    assert sum(step.looked_at for step in reader.steps(question)) == 10
    monkeypatch.setattr(search, "opened", lambda segment: pytest.fail(f"{segment} was opened again"))
    assert {step.looked_at for step in reader.steps(Question(since=moment(START + 20 * DAY)))} == {0}


async def test_days_are_found_in_what_a_journal_wrote_while_the_clock_jumped(tmp_path: Path) -> None:
    """Segments of other days are passed over, which is right only as long as the journal begins one for each day."""
    days = [0.0, 1.0, 1.5, 0.9999999, 1.0, 3.0, 2.999, 2.0, 2.0, -5.0, 2.0]
    now = START
    journal = await Journal.open(tmp_path / "audit", tmp_path / "keys", Audit(), wall=lambda: now)
    for n, day in enumerate(days, 1):
        now = START + day * DAY
        journal.note(*body(n))
    await journal.close(5)
    made = Log(tmp_path / "audit")
    made.lines = [line for segment in listed(made.folder) for line in segments.lines(segment)]
    assert len(made.lines) == len(days)
    assert len(listed(made.folder)) == 8, "else nothing is passed over here"
    for day in range(-6, 5):
        question = Question(since=moment(START + day * DAY), until=moment(START + (day + 1) * DAY))
        assert found(made.folder, question) == brute(made, question), day
        assert found(made.folder, question, newest_first=True) == brute(made, question)[::-1]


def test_a_line_that_is_being_written_is_no_record_yet(tmp_path: Path) -> None:
    made = Log(tmp_path)
    lines = [made.chain.append(*body(n), START) for n in range(1, 6)]
    for cut in (1, 60, len(lines[-1])):
        made.put(1, lines[:-1], closed=False, torn=lines[-1][:cut])
        assert found(tmp_path, Question()) == [1, 2, 3, 4]
        assert found(tmp_path, Question(), newest_first=True) == [4, 3, 2, 1]
    for torn in (b"", lines[0][:50]):
        made.put(1, [], closed=False, torn=torn)
        assert found(tmp_path, Question()) == found(tmp_path, Question(), newest_first=True) == []
    (tmp_path / "000000000001.jsonl").unlink()
    assert found(tmp_path, Question()) == found(tmp_path, Question(), newest_first=True) == []


@pytest.mark.usefixtures("small")
def test_a_record_longer_than_many_blocks_is_found(tmp_path: Path) -> None:
    made = Log(tmp_path)
    long = [{"subject": ANNA, "sealed": "x" * 5000}, {"subject": BEN}, {"subject": ANNA, "sealed": "y" * 9000}]
    made.put(1, [made.chain.append(Kind.CONTENT, each, START) for each in long], closed=False)
    for question, wanted in ((Question(), [1, 2, 3]), (Question(fields={"subject": ANNA}), [1, 3])):
        assert found(tmp_path, question) == wanted
        assert found(tmp_path, question, newest_first=True) == wanted[::-1]


def gone(line: bytes) -> bytes:
    kind = json.loads(line)["kind"].encode()
    digest = hashlib.sha256(line).hexdigest().encode()
    return in_place_of(Line(kind, seq_of(line) or 0, b"", b"", b""), digest).rstrip()


@pytest.mark.usefixtures("small")
def test_what_retention_removed_is_not_there_and_nothing_else_is_missing(log: Log) -> None:
    first = [line if b'"kind":"act"' in line else gone(line) for line in log.lines[:40]]
    log.put(1, first, closed=True)
    log.put(41, [gone(line) for line in log.lines[40:69]] + log.lines[69:70], closed=True)
    acts = [number for number, line in enumerate(log.lines[:40], 1) if b'"kind":"act"' in line]
    wanted = [*acts, *range(70, 106)]
    reader = Search(log.folder)
    for newest_first in (False, True):
        page = reader.page(Question(), 1000, newest_first=newest_first)
        assert [seq_of(line) for line in page.lines] == sorted(wanted, reverse=newest_first)
        told = list(pages(reader, Question(), 3, newest_first=newest_first))
        assert [seq for each in told for seq in each] == sorted(wanted, reverse=newest_first)
    assert found(log.folder, Question(kind=Kind.ACT, most=40)) == acts
    assert found(log.folder, Question(since=moment(START), until=moment(START + DAY))) == [70]
    copy = [line for step in reader.steps(Question(most=69)) for line in step.lines]
    assert copy == [*first, *map(gone, log.lines[40:69])], "a copy says what was removed"


def test_a_segment_that_is_closed_meanwhile_is_read_all_the_same(log: Log) -> None:
    reader = Search(log.folder)
    steps = reader.steps(Question())
    told = [next(steps)]
    (log.folder / "000000000071.jsonl").unlink()
    log.put(71, log.lines[70:], closed=True)
    told += steps
    assert [seq_of(line) for step in told for line in step.lines] == list(range(1, 106))


def test_a_segment_that_retention_removes_meanwhile_is_left_out(log: Log) -> None:
    steps = Search(log.folder).steps(Question())
    told = [next(steps)]
    (log.folder / "000000000041.jsonl.gz").unlink()
    told += steps
    assert [seq_of(line) for step in told for line in step.lines] == [*range(1, 41), *range(71, 106)]


@pytest.mark.usefixtures("small")
def test_a_damaged_line_breaks_no_page_and_hides_no_other(log: Log) -> None:
    whole = log.lines[89]
    for wrong in (b"", b"no JSON", whole[:-9] + b'"seq":x}', whole.replace(b'"body":{', b'"body":{,', 1)):
        log.put(71, [*log.lines[70:89], wrong, *log.lines[90:]], closed=False)
        reader = Search(log.folder)
        for newest_first in (False, True):
            wanted = sorted({*range(1, 106)} - {90}, reverse=newest_first)
            assert [*reader.page(Question(), 1000, newest_first=newest_first).lines] == [
                log.lines[number - 1] for number in wanted
            ]
        assert wrong in [line for step in reader.steps(Question()) for line in step.lines], "an export has all there is"


def test_what_cant_be_read_says_what_to_do(log: Log) -> None:
    file = log.folder / "000000000041.jsonl.gz"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(AuditFailed, match="appliance audit verify"):
        found(log.folder, Question())
    assert found(log.folder, Question(least=71)) == list(range(71, 106))
    with pytest.raises(AuditFailed, match="can't be read: No such file"):
        found(log.folder / "nowhere", Question())


@pytest.mark.usefixtures("small")
async def test_between_two_blocks_others_have_their_turn(log: Log) -> None:
    reader = Search(log.folder)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(other())
    steps = 0
    seen = []
    async for _ in reader.beside(reader.steps(Question())):
        steps += 1
        seen.append(turns)
    task.cancel()
    reader.close()
    assert steps > 20
    assert len(set(seen)) == steps, "somebody else ran before each"


async def test_beside_the_loop_it_is_the_same(log: Log) -> None:
    reader = Search(log.folder)
    question = Question(kind=Kind.ACT)
    page = await reader.page_beside(question, 5)
    assert (page.lines, page.next) == ((same := reader.page(question, 5)).lines, same.next)
    (log.folder / "000000000041.jsonl.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(AuditFailed):
        await reader.page_beside(Question(), 1000)
    reader.close()


async def test_only_so_many_look_at_once_since_each_holds_a_piece_of_the_log(log: Log) -> None:
    reader = Search(log.folder)
    try:
        asked = [asyncio.create_task(reader.page_beside(Question(), 5)) for _ in range(12)]
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(each, Overloaded) for each in done) == 4
        assert len((await reader.page_beside(Question(), 5)).lines) == 5, "and then it goes on"
    finally:
        reader.close()


# ---- tables


def test_a_row_has_a_cell_for_each_column_and_nothing_sealed(log: Log) -> None:
    rows = [dict(zip(table.COLUMNS, table.row(line), strict=True)) for line in log.lines[:5]]
    assert [row["seq"] for row in rows] == [1, 2, 3, 4, 5]
    assert (rows[0]["intent"], rows[0]["outcome"], rows[0]["status"]) == (0, "served", 200)
    assert rows[1]["team"] == "Ein, kauf"
    assert (rows[2]["by_subject"], rows[2]["by_role"], rows[2]["target_subject"]) == (BEN, "admin", ANNA)
    assert (rows[3]["incident"], rows[3]["seconds"]) == ("audit_unwritable", 4)
    assert all(row["more"] == "" for row in rows)
    assert all("c2" not in row.values() for row in rows)


def test_what_has_no_column_stands_in_more() -> None:
    line = Chain().append(Kind.INTENT, {"stream": True, "found": {"iban": 2}, "x": None, "sealed": "c2"}, START)
    row = dict(zip(table.COLUMNS, table.row(line), strict=True))
    assert (row["stream"], json.loads(str(row["more"]))) == ("true", {"found": {"iban": 2}, "x": None})


@given(st.dictionaries(st.sampled_from(["team", "model", "why", "x", "by"]), st.text(max_size=20), max_size=5))
def test_any_text_comes_back_out_of_the_csv_and_is_no_formula(told: dict[str, str]) -> None:
    by = told.pop("by", "")
    line = Chain().append(Kind.ACT, {**told, "by": {"role": by}}, START)
    (cells,) = csv.reader(io.StringIO(csv_lines([table.row(line)]), newline=""))
    row = dict(zip(table.COLUMNS, cells, strict=True))
    for name in ("team", "model", "why"):
        assert row[name].replace("'", "") == told.get(name, "").replace("'", "")
        assert not row[name].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert not row["by_role"].startswith(("=", "+", "-", "@", "\t", "\r"))


@pytest.mark.parametrize("line", [b"", b"{}", b"no", b'{"at":"x","body":[],"kind":"act","seq":1}', b"[" * 100_000])
def test_a_damaged_line_is_no_row(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        table.row(line)
