"""`appliance compliance`: the report of a log as it is, also of a damaged one, and whether the log knows a report."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance.__main__ import WRONG_INPUT, main
from appliance.accounts.store import Store
from appliance.compliance.collect import Facts, gather
from appliance.compliance.month import Month
from appliance.compliance.report import content_sum, make
from appliance.compliance.words import Language
from tests.audit.chain import records
from tests.compliance import sample
from tests.fakes.house import House


@pytest.fixture
def lived(house: House) -> House:
    """A house with keys, and a log."""
    loaded = sample.config_of(house)
    loaded.state.mkdir(mode=0o700)
    store = Store.sqlite(loaded.state)
    every = sample.keys()
    for key in every:
        store.add_key(key)
    store.close(last=True)
    asyncio.run(sample.life(loaded, requests=40))
    return house


def report(house: House, *options: str, month: str = "2026-11") -> int:
    output = str(house.folder / "out")
    return main(["compliance", "report", "--config", str(house.config), "--month", month, "--output", output, *options])


def check(house: House, file: Path) -> int:
    return main(["compliance", "check", "--config", str(house.config), str(file)])


def test_a_report_is_made_put_on_record_and_known_again(lived: House, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(lived) == 0
    made = lived.folder / "out" / "compliance-2026-11-de"
    page, paper, sums = (made.with_suffix(f".{form}") for form in ("html", "pdf", "SHA256SUMS"))
    assert capsys.readouterr().out.split() == [str(page), str(paper), str(sums)]
    assert page.stat().st_mode & 0o777 == 0o600
    begun, done = [each["body"] for each in records(lived.state / "audit") if each["body"].get("act") == "report"]
    assert (begun["phase"], done["phase"], begun["month"], begun["language"]) == ("intent", "done", "2026-11", "de")
    noted = dict(reversed(line.split("  ")) for line in sums.read_text().splitlines())
    assert noted == {page.name: done["html"], paper.name: done["pdf"]}
    for file in (page, paper):
        assert check(lived, file) == 0
        assert re.search(r"^✓ .* a report on 2026-11 that the log knows: record \d+ of ", capsys.readouterr().out)


def test_a_report_that_was_changed_or_made_elsewhere_is_not_known(
    lived: House, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(lived, "--language", "en") == 0
    page = lived.folder / "out" / "compliance-2026-11-en.html"
    html = page.read_bytes()
    page.write_bytes(html.replace(b"Vertrieb", b"Verkauf"))
    assert check(lived, page) == 1
    assert "changed after it was made" in capsys.readouterr().out
    forged = html.replace(b"Vertrieb", b"Verkauf")
    page.write_bytes(forged.replace(content_sum(html).encode(), content_sum(forged).encode()))
    assert check(lived, page) == 1
    assert "the log knows no such report" in capsys.readouterr().out
    paper = page.with_suffix(".pdf")
    paper.write_bytes(paper.read_bytes() + b"%")
    assert check(lived, paper) == 1
    assert check(lived, lived.folder / "nothing.pdf") == WRONG_INPUT


def test_of_a_damaged_log_there_is_a_report_that_says_so_loudly(lived: House) -> None:
    closed = sorted((lived.state / "audit").glob("*.jsonl.gz"))[0]
    content = bytearray(closed.read_bytes())
    content[len(content) // 2] ^= 0x40
    closed.write_bytes(bytes(content))
    report(lived)
    page = (lived.folder / "out" / "compliance-2026-11-de.html").read_text()
    assert "DAS PROTOKOLL IST BESCHÄDIGT ODER WURDE VERÄNDERT" in page
    assert "✗" in page
    assert closed.name in page
    assert (lived.folder / "out" / "compliance-2026-11-de.pdf").read_bytes().startswith(b"%PDF-")


def test_a_report_that_can_not_be_put_on_record_is_made_and_the_command_says_so(
    lived: House, capsys: pytest.CaptureFixture[str]
) -> None:
    (lived.state / "audit-keys" / "signing.pem").write_text("no key")
    assert report(lived, "--json") == 1
    told = capsys.readouterr()
    answer = json.loads(told.out)
    assert answer["on_record"] is False
    assert "the log doesn't know of this report" in told.err
    assert all(Path(file).exists() for file in answer["files"])


def test_of_a_month_before_the_log_began_nothing_is_said_as_if_nothing_had_been(lived: House) -> None:
    assert report(lived, month="2025-03") == 0
    page = (lived.folder / "out" / "compliance-2025-03-de.html").read_text()
    for text in ("März 2025", "01.03.2025 bis 31.03.2025", "KEINEN NACHWEIS"):
        assert text in page
    assert page.count("Für diesen Zeitraum gibt es keine Aufzeichnungen: Das Protokoll beginnt erst am 20.11.2026") > 9
    for text in ("nichts gefragt", "Nichts wurde abgelehnt", "Niemand wurde", "Es wurde", "Das Protokoll ist vollst"):
        assert text not in page, text


def test_a_month_that_is_not_over_goes_until_now(good: Facts) -> None:
    assert "01.11.2026 bis heute, 22.11.2026, 16:30:00 Uhr" in make(good, Language.GERMAN).html.decode()
    assert "1 November 2026 until today, 2026-11-22, 16:30:00" in make(good, Language.ENGLISH).html.decode()


@pytest.mark.parametrize(
    ("month", "why"), [("2099-01", "has not begun"), ("november", "2026-11"), ("2026-13", "2026-11")]
)
def test_a_month_that_can_not_be_meant_is_refused(
    lived: House, month: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = report(lived, month=month)
    except SystemExit as ended:
        status = int(str(ended.code))
    assert status == WRONG_INPUT
    assert why in capsys.readouterr().err
    assert not (lived.folder / "out").exists()


def test_a_folder_that_can_not_be_written_is_named(lived: House, capsys: pytest.CaptureFixture[str]) -> None:
    (lived.folder / "out").write_text("a file")
    assert report(lived) == 1
    assert str(lived.folder / "out") in capsys.readouterr().err
    assert not [each for each in records(lived.state / "audit") if each["body"].get("act") == "report"]


def test_a_month_begins_and_ends_in_the_companys_time_zone(house: House) -> None:
    loaded = sample.config_of(house)
    zone = loaded.settings.accounts.zone
    month = Month.of(datetime(2026, 3, 1, tzinfo=UTC).date(), zone, sample.NOW)
    assert month.span == ("2026-02-28T23:00:00.000Z", "2026-03-31T22:00:00.000Z")
    assert month.over
    facts = gather(loaded, [], month, host="h", made=sample.NOW)
    assert facts.log.records == 0
    assert facts.verification.holds is None
