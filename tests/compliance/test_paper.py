"""The paper: a tagged PDF for archives, made offline, in which nobody's name is ever typst's language."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfReader

from appliance.compliance.blocks import Block, Code, Heading, Paragraph, Table
from appliance.compliance.collect import Facts
from appliance.compliance.paper import paper
from appliance.compliance.report import content_sum, make
from appliance.compliance.words import Language
from tests.compliance.test_page import every_block

MADE = datetime(2026, 11, 22, 15, 30, tzinfo=UTC)


def drawn(word: str, blocks: list[Block] | None = None) -> str:
    """The text on the paper."""
    every = every_block(word) if blocks is None else blocks
    made = paper(word or "x", every, language="de", host=word, header=word, bottom=word, made=MADE)
    return "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(made)).pages)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_any_text_can_be_drawn(word: str) -> None:
    assert "1 / 1" in drawn(word)


@pytest.mark.parametrize(
    "word",
    ["#import", "*bold*", "$x^2$", "<label>", "@ref", "//gone", "/*gone*/", "[block]", "= head", "#{panic()}", "~",
     "--", "\\u{41}", "`raw`", "'smart'", "_it_", "https://x.de"],
)  # fmt: skip
def test_typst_is_never_spoken_in_a_text(word: str) -> None:
    shown = drawn(word)
    assert shown.replace("\n", "").count(word) >= 12


def test_what_the_fonts_lack_and_what_commands_is_told_by_its_number() -> None:
    shown = drawn("語\x1b\u202ex")
    assert "\\u8a9e\\x1b\\u202ex" in shown.replace("\n", "")
    assert "Größe Öztürk Łódź Ελλάδα Москва €" in drawn("Größe Öztürk Łódź Ελλάδα Москва €")
    assert "für" in drawn("fu\u0308r")


def test_all_characters_that_are_drawn_are_in_the_fonts() -> None:
    from appliance.compliance import paper as papers

    every = [chr(each) for known in papers._DRAWABLE for each in known if chr(each).isprintable()]
    lines = ["".join(every[start : start + 60]) for start in range(0, len(every), 60)]
    assert drawn("x", [Heading("x"), Table(["x"], [100], [(line,) for line in lines])])


def catalog(pdf: bytes) -> Any:
    return PdfReader(io.BytesIO(pdf)).trailer["/Root"]


@pytest.mark.parametrize("language", Language)
def test_it_is_tagged_for_archives_and_names_its_language(good: Facts, language: Language) -> None:
    pdf = make(good, language).pdf
    root = catalog(pdf)
    assert root["/MarkInfo"]["/Marked"]
    assert root["/Lang"] == str(language)
    metadata = root["/Metadata"].get_data().decode()
    assert "<pdfaid:part>2</pdfaid:part>" in metadata
    assert "<pdfaid:conformance>A</pdfaid:conformance>" in metadata
    assert "<pdfuaid:part>1</pdfuaid:part>" in metadata
    reader = PdfReader(io.BytesIO(pdf))
    for sheet in reader.pages:
        assert [float(each) for each in sheet.mediabox] == pytest.approx([0, 0, 595.28, 841.89], abs=0.01)  # A4


def test_all_fonts_are_inside_and_nothing_runs_or_leads_out(good: Facts) -> None:
    pdf = make(good, Language.GERMAN).pdf
    reader = PdfReader(io.BytesIO(pdf))
    fonts = [font for page in reader.pages for font in page["/Resources"]["/Font"].values()]
    for font in fonts:
        (below,) = font.get_object()["/DescendantFonts"]
        assert "/FontFile3" in (descriptor := below.get_object()["/FontDescriptor"]) or "/FontFile2" in descriptor
    for name in (b"/JavaScript", b"/OpenAction", b"/Launch", b"/URI", b"/EmbeddedFiles"):
        assert name not in pdf


def test_each_sheet_has_host_month_and_number_and_the_page_is_named_by_its_checksum(good: Facts) -> None:
    report = make(good, Language.GERMAN)
    reader = PdfReader(io.BytesIO(report.pdf))
    count = len(reader.pages)
    for number, sheet in enumerate(reader.pages, 1):
        text = sheet.extract_text()
        assert f"{number} / {count}" in text
        assert "Compliance-Bericht November 2026" in text
        assert "llm-1.example.internal" in text
    whole = "".join(sheet.extract_text() for sheet in reader.pages)
    assert content_sum(report.html) in whole.replace("\n", "")
    for part in ("Jörg Größer", "Öztürk", "Verzeichnis von Verarbeitungstätigkeiten", "✓"):
        assert part in whole


def sheets(blocks: list[Block]) -> list[str]:
    made = paper("x", blocks, language="de", host="x", header="x", bottom="x", made=MADE)
    return [sheet.extract_text() for sheet in PdfReader(io.BytesIO(made)).pages]


def test_no_line_begins_with_the_sign_that_ends_a_code() -> None:
    rows = [
        ((letter * before, " ", Code("p_031f811f74031c5dbda39b04"), "; y"), "")
        for before in range(20)
        for letter in "ixm"
    ]
    (sheet, *more) = sheets([Table(["a", "b"], [30, 70], rows)])
    assert "\n;" not in "".join([sheet, *more])


def test_a_row_is_never_parted_by_the_end_of_a_page() -> None:
    rows = [(f"begin{row}.", f"{'word ' * (20 + row % 7)}end{row}.") for row in range(100)]
    found = sheets([Table(["a", "b"], [80, 20], rows)])
    assert len(found) > 5
    for sheet in found:
        assert re.findall(r"begin(\d+)\.", sheet) == re.findall(r"end(\d+)\.", sheet.replace("\n", ""))


def test_a_cell_that_is_longer_than_a_page_is_parted_all_the_same() -> None:
    found = sheets([Table(["a"], [100], [("word " * 9000 + "end.",)])])
    assert "end." in found[-1]
    assert len(found) > 4


def test_a_few_rows_that_are_longer_than_a_page_together_go_on_on_the_next() -> None:
    found = sheets([Table(["a", "b"], [80, 20], [("x", f"{'word ' * 170}end{row}.") for row in range(9)])])
    assert len(found) > 2
    assert re.findall(r"end(\d+)\.", "".join(found)) == list("012345678")
    assert max(sheet.count("word") for sheet in found) < 1000


@pytest.mark.parametrize("above", range(30, 60))
def test_a_heading_never_stands_at_the_foot_of_a_page_without_its_table(above: int) -> None:
    blocks: list[Block] = [Paragraph("line")] * above
    blocks += [
        Heading("section."),
        Paragraph("intro."),
        Heading("heading.", 2),
        Paragraph("why.", small=True),
        Table(["head."], [100], [(f"row{n}.",) for n in range(3)]),
    ]
    (sheet,) = [sheet for sheet in sheets(blocks) if "heading." in sheet]
    for each in ("section.", "intro.", "why.", "head.", "row0."):
        assert each in sheet


def test_the_same_facts_make_the_same_files(good: Facts) -> None:
    assert make(good, Language.ENGLISH) == make(good, Language.ENGLISH)
