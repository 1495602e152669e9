"""The page: one file that fetches nothing, in which nobody's name is ever markup, and that carries its checksum."""

from __future__ import annotations

import hashlib
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.compliance.blocks import (
    Blank,
    Block,
    Bullets,
    Code,
    Heading,
    Listing,
    Pairs,
    Paragraph,
    Strong,
    Table,
    Verdict,
)
from appliance.compliance.collect import Facts
from appliance.compliance.page import page
from appliance.compliance.report import content_sum, make, self_consistent
from appliance.compliance.words import Language


class Seen(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str, str | None]] = set()
        self.text = ""
        self.feed(content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(tag, name, value) for name, value in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def every_block(word: str) -> list[Block]:
    """A block of each kind, with `word` wherever a text may stand."""
    return [
        Heading(word), Heading(word, 2), Paragraph((word, Strong(word), Code(word), Blank(word))),
        Bullets([word, word]), Table([word, word], [50, 50], [(word, Code(word))], frozenset({1})),
        Pairs([(word, word)]), Verdict([(False, word)]), Listing([word]),
    ]  # fmt: skip


def drawn(word: str) -> bytes:
    return page(word, every_block(word), language="de", host=word, bottom=word, footer=word)


ORDINARY = Seen(drawn("x"))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_no_text_is_ever_markup(word: str) -> None:
    seen = Seen(drawn(word))
    assert seen.tags == ORDINARY.tags
    assert seen.attributes == ORDINARY.attributes
    assert "".join(each for each in seen.text if not each.isprintable()).strip("\n") == ""


@pytest.mark.parametrize("word", ["</style><script>", '"><img src=x>', "\x1b[2J\u202e", "a\x00b", "{}", "--></title>"])
def test_what_would_attack_a_reader_is_shown_as_it_is(word: str) -> None:
    seen = Seen(drawn(word))
    assert seen.tags == ORDINARY.tags
    shown = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in word)
    assert shown in seen.text


@pytest.mark.parametrize("language", Language)
def test_a_report_is_one_page_that_fetches_nothing_and_says_so(good: Facts, language: Language) -> None:
    html = make(good, language).html
    seen = Seen(html)
    assert seen.tags & {"script", "link", "img", "iframe", "object", "form", "a", "base"} == set()
    assert ("html", "lang", str(language)) in seen.attributes
    policy = next(value for tag, name, value in seen.attributes if tag == "meta" and value and "default-src" in value)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    style = re.search(rb"<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None
    assert b"url(" not in style[1]
    assert b"@import" not in style[1]


def test_on_a_narrow_screen_wide_tables_are_moved_and_nothing_runs_off() -> None:
    def drawn(columns: int) -> str:
        table = Table(["x"] * columns, [100 // columns] * columns, [["x"] * columns])
        return page("x", [table], language="de", host="x", bottom="x", footer="x").decode()

    assert '<div class="wide"><table' in drawn(4)
    assert '<div class="wide"><table' not in drawn(3)
    (narrow,) = re.findall(r"@media screen and \(max-width: 680px\) \{.*?\n\}", drawn(4), re.DOTALL)
    assert ".wide { overflow-x: auto; }" in narrow
    assert "dl { grid-template-columns: 1fr;" in narrow


def test_each_sentence_of_the_box_has_a_mark_of_its_own() -> None:
    box = page("x", [Verdict([(False, "bad"), (True, "good")])], language="de", host="x", bottom="x", footer="x")
    assert '<div class="verdict wrong"><div><span>✗</span><span>bad</span></div><div><span>✓</span>'.encode() in box


def test_the_last_line_is_the_checksum_of_all_before_as_a_shell_says_too(good: Facts, tmp_path: Path) -> None:
    html = make(good, Language.GERMAN).html
    (tmp_path / "report.html").write_bytes(html)
    line = ["sh", "-c", "head -n -1 report.html | sha256sum"]
    said = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()[0]
    assert said == content_sum(html) == hashlib.sha256(b"".join(html.splitlines(keepends=True)[:-1])).hexdigest()
    assert said in html.decode().splitlines()[-1]
    assert self_consistent(html)


@pytest.mark.parametrize("change", [(b"Vertrieb", b"Verkauf"), (b"</footer>", b"</footer> "), (b"<main>\n", b"<main>")])
def test_a_page_that_was_changed_is_not_consistent(good: Facts, change: tuple[bytes, bytes]) -> None:
    html = make(good, Language.GERMAN).html
    assert change[0] in html
    assert not self_consistent(html.replace(*change, 1))
    assert not self_consistent(html + b"\n")
    assert not self_consistent(b"")
