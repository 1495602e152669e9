"""A report: the verdict never says more than the checks, and no name in it can attack whoever reads it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from appliance.egress import page, report
from appliance.egress.findings import Check
from appliance.egress.judge.attempts import FOREIGN, ON_CONNECTIONS
from appliance.egress.ledger import Ledger
from appliance.seal import probes
from appliance.signing import canonical
from tests.egress import found

HOSTILE = "<script>\"'&</td></style>\x1b[2J\u202e\n\x00\udc80"
PAGE = (Path(__file__).parents[2] / "docs" / "egress.md").read_text()


@pytest.fixture(params=[found.holding, found.violated])
def made(request: pytest.FixtureRequest) -> dict[str, Any]:
    return found.built(*request.param())


def signed(made: dict[str, Any], folder: Path) -> dict[str, Any]:
    Ledger(folder).append(made)
    return Ledger(folder).read()


def test_it_holds_all_findings_and_has_canonical_bytes(made: dict[str, Any]) -> None:
    assert json.loads(canonical(made)) == json.loads(json.dumps(made))
    assert made["format"] == "appliance-egress-report/1"
    assert made["time"] == "2026-11-22T10:05:00Z"
    counted = [len(made["findings"][name]) for name in ("processes", "networks", "probes")]
    assert counted[1:] == [3, len(report.ATTEMPTS) * 3 - 2 * len(ON_CONNECTIONS)]
    assert sum(len(process["threads"]) for process in made["findings"]["processes"]) >= 60
    assert sum(len(process["sockets"]) for process in made["findings"]["processes"]) >= 40


def test_time_is_told_in_utc() -> None:
    began = datetime(2026, 11, 22, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    made = report.build(*found.holding(), host="h", began=began, milliseconds=1)
    assert made["time"] == "2026-11-21T23:30:00Z"


def test_it_holds_only_if_there_are_checks_that_all_hold_and_no_trouble() -> None:
    findings, checks = found.holding()
    good = Check("a", "A", holds=True, seen="1", violations=[])
    assert found.built(findings, checks)["holds"] is True
    assert found.built(findings, [])["holds"] is False
    assert found.built(replace(findings, trouble=["x"]), checks)["holds"] is False
    assert found.built(findings, [good, replace(good, holds=False)])["holds"] is False
    assert found.built(findings, [good, replace(good, violations=["x"])])["holds"] is False


def test_whoever_is_trusted_is_named_with_the_reason_and_the_processes() -> None:
    trusted = {each["what"]: each for each in found.built(*found.holding())["trusted"]}
    assert [trusted[name]["processes"] for name in ("nursery", "keeper", "witness")] == [[1203], [1210, 1211], [1204]]
    assert trusted["dialler"]["processes"] == []
    assert len(trusted) == 7
    assert all(len(each["why"]) > 20 for each in trusted.values())
    findings, checks = found.holding()
    odd = found.process(9, "trusted", "something else", "x", found.HOST, 1)
    made = found.built(replace(findings, processes=[*findings.processes, odd]), checks)
    assert [each["processes"] for each in made["trusted"] if each["what"] == "something else"] == [[9]]


def test_every_attempt_is_told_in_plain_words() -> None:
    nowhere = ["127.0.0.1", 9]
    order: dict[str, Any] = dict.fromkeys(("tcp4", "tcp6", "udp4", "udp6"), nowhere)
    known = probes.attempts(order | {"interpreter": "x", "neighbour": "x"}).keys() | ON_CONNECTIONS
    assert known | {FOREIGN} == report.ATTEMPTS.keys()
    in_docs = {name for row in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE) for name in re.findall("`(.*?)`", row)}
    assert report.ATTEMPTS.keys() - in_docs == set()


def test_on_a_terminal_it_is_one_screen_when_all_holds(tmp_path: Path) -> None:
    made = signed(found.built(*found.holding()), tmp_path)
    text = report.text(made, file=tmp_path / "reports/000001.json")
    lines = text.splitlines()
    assert lines[0].startswith("✓ IT HOLDS")
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 110
    assert "\x1b" not in text
    for part in (made["sha256"], Ledger(tmp_path).read()["key"] and "signed by", "nowhere", "Root on this machine"):
        assert part in text
    assert [line for line in lines if line.startswith("✗")] == []


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_on_a_terminal_each_violation_stands_below_its_check() -> None:
    made = found.built(*found.violated())
    text = flat(report.text(made))
    count = sum(len(check["violations"]) for check in made["checks"])
    assert count > 10
    assert text.startswith(f"✗ NOT PROVEN: {count} things are wrong.")
    place = 0
    for check in made["checks"]:
        place = text.index(check["title"], place)
        for violation in check["violations"]:
            place = text.index(flat(report.printable(violation)), place)
    for part in (*made["findings"]["trouble"], "legacy", "NOT ENCRYPTED", "10.20.0.77"):
        assert part in text


def test_colour_changes_nothing_but_colour(made: dict[str, Any]) -> None:
    coloured = report.text(made, colour=True)
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == report.text(made)


def hostile(value: Any, word: str) -> Any:
    """`value` with each text replaced by `word`, but those that decide what the page is made of."""
    fixed = {
        "role",
        "place",
        "time",
        "attempt",
        "outcome",
        "control",
        "format",
        "key",
        "sha256",
        "signature",
        "previous",
    }
    if isinstance(value, dict):
        return {name: item if name in fixed else hostile(item, word) for name, item in value.items()}
    if isinstance(value, list):
        return [hostile(item, word) for item in value]
    return word if isinstance(value, str) else value


def test_no_text_in_it_can_command_a_terminal_or_leave_its_line(made: dict[str, Any]) -> None:
    shown = report.text(hostile(made, HOSTILE) | {"broken": [HOSTILE], "healed": [HOSTILE]}, file=Path(HOSTILE[:-2]))
    assert [each for each in shown if not each.isprintable() and each != "\n"] == []
    assert len(shown.splitlines()) == len(shown.split("\n")) - 1


def test_what_is_not_unicode_is_stored_all_the_same(tmp_path: Path) -> None:
    findings, checks = found.holding()
    strange = b"\xff\xfe caf\xc3\xa9".decode("utf-8", "surrogateescape")
    odd = replace(findings.processes[0], command=strange, place="gateway")
    made = found.built(replace(findings, processes=[odd], missing={strange: [strange]}), checks, host=strange)
    stored = signed(made, tmp_path)
    assert stored["host"] == stored["findings"]["processes"][0]["command"] == "\\xff\\xfe café"
    assert Ledger(tmp_path).check() == []


class Markup(HTMLParser):
    """The tags of a page in order, its attributes and its text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(f"{tag} {dict(attrs).get('class', '')}")
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        self.tags.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_made_of_the_same_parts_whatever_the_names_are(made: dict[str, Any], tmp_path: Path) -> None:
    made = signed(made, tmp_path)
    harmless, attacked = (page.html(hostile(made, word)) for word in ("x", HOSTILE[:-1]))
    assert Markup(attacked).tags == Markup(harmless).tags
    assert Markup(attacked).text.count("x") == 0
    assert [each for each in attacked if not each.isprintable() and each != "\n"] == []
    for name in ("place", "attempt", "outcome", "control", "role", "time"):
        odd = json.loads(
            json.dumps(made).replace(f'"{name}": "', f'"{name}": "\\u003cblink\\u003e\\u0022\\u003c/style\\u003e')
        )
        assert "<blink" not in page.html(odd).split("</style>", 1)[1], name
        assert page.html(odd).count("</style>") == 1, name


def test_the_page_fetches_nothing_runs_nothing_and_is_allowed_nothing(made: dict[str, Any]) -> None:
    text = page.html(made)
    parsed = Markup(text)
    assert parsed.attributes == {"lang", "charset", "http-equiv", "content", "class"}
    assert {tag.split()[0] for tag in parsed.tags} & {"script", "img", "link", "iframe", "a", "form", "object"} == set()
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import|https?:", text.replace("203.0.113.9:443", ""))


def test_the_page_shows_all_that_was_found(made: dict[str, Any], tmp_path: Path) -> None:
    made = signed(made, tmp_path)
    shown = flat(" ".join(Markup(page.html(made)).text))
    findings = made["findings"]
    wanted = [made["host"], made["sha256"], made["previous"], made["signature"], *made["limits"], *findings["trouble"]]
    wanted += [text for check in made["checks"] for text in (check["title"], check["seen"], *check["violations"])]
    wanted += [text for each in made["trusted"] for text in (each["what"], each["why"])]
    wanted += [to["address"] for to in findings["destinations"]] + [each["path"] for each in findings["host_sockets"]]
    wanted += [str(number) for network in findings["networks"] for number in network["interfaces"].values()]
    wanted += [part for parts in findings["missing"].values() for part in parts]
    for text in wanted:
        assert flat(report.printable(text)) in shown
    for process in findings["processes"]:
        assert str(process["pid"]) in shown
    assert shown.count("GOT OUT") == sum(probe["arrived"] for probe in findings["probes"])


def test_like_threads_are_one_line_and_one_that_differs_stands_out() -> None:
    shown = flat(" ".join(Markup(page.html(found.built(*found.violated()))).text))
    assert "11: 1302-1312 filtered (1), gains no privilege, holds none, network 4026532412" in shown
    assert "1: 1313 NO FILTER, gains no privilege, holds none" in shown
    assert "1210 keeper of engine chat: python -P -m appliance.engines.nursery 990 1: 1210 no filter" in shown
    assert "23 tcp established 10.20.0.5:8443 10.20.7.31:50210," in shown
    assert "and 19 more 4026531840, the machine's" in shown


def test_ranges_join_runs() -> None:
    assert report.ranges([]) == ""
    assert report.ranges([9, 3, 7, 8, 12]) == "3, 7-9, 12"


def test_an_unsigned_report_says_that_it_is_not_signed(made: dict[str, Any]) -> None:
    assert "This report isn't signed." in " ".join(Markup(page.html(made)).text)
    assert "signed by" not in report.text(made)


def test_what_was_wrong_with_the_chain_is_shown(tmp_path: Path) -> None:
    for _ in range(2):
        signed(found.built(*found.holding()), tmp_path)
    (tmp_path / "head.json").unlink()
    made = signed(found.built(*found.holding()), tmp_path)
    assert "! the chain of reports: head.json was missing" in report.text(made)
    assert report.text(made).startswith("✗ NOT PROVEN: 1 thing is wrong.")
    assert "head.json was missing" in page.html(made)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium isn't installed")
@pytest.mark.parametrize(("findings", "pages"), [(found.holding, 6), (found.violated, 8)])
def test_printed_it_is_a_few_pages_of_a4(findings: Any, pages: int, tmp_path: Path) -> None:
    made = signed(found.built(*findings()), tmp_path)
    (tmp_path / "report.html").write_text(page.html(made))
    with tempfile.TemporaryDirectory(dir="/tmp") as profile:
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-pdf-header-footer",
            f"--user-data-dir={profile}",
        ]
        target = tmp_path / "report.pdf"
        command = ["chromium", *options, f"--print-to-pdf={target}", f"file://{tmp_path}/report.html"]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    printed = target.read_bytes()
    boxes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", printed)
    assert {(round(float(wide)), round(float(high))) for wide, high in boxes} == {(595, 842)}
    assert 1 < len(boxes) <= pages


def test_the_officers_page_is_one_screen_without_jargon() -> None:
    officers = PAGE.split("\n---\n")[0]
    assert len(officers.splitlines()) <= 45
    assert max(map(len, officers.splitlines())) <= 120
    jargon = "seccomp|landlock|namespace|socket|kernel|syscall|system call|thread|descriptor|process|ed25519|sha|hash"
    assert re.findall(jargon, officers, re.IGNORECASE) == []
