"""Names out of files as offices have them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import BadRequest
from appliance.privacy.kinds import Kind
from appliance.privacy.site import importing
from appliance.privacy.site.entry import SiteEntry

TABLE = "Nr;Nachname;Vorname;Ort\r\n1;Müller;Anna;Hamm\r\n2;Lange;Otto;\r\n3;;;Unna\r\n"


def names(entries: list[SiteEntry]) -> list[str]:
    assert {entry.kind for entry in entries} <= {Kind.CLIENT}
    return [entry.name for entry in entries]


def lines(text: str) -> list[SiteEntry]:
    return importing.lines(text, Kind.CLIENT)


def table(text: str, *columns: str) -> list[str]:
    return names(importing.table(text, Kind.CLIENT, columns))


def test_a_text_has_one_to_a_line_and_other_names_behind_semicolons() -> None:
    found = lines("# our clients\n\nAnna Müller\n  Krause  Bau GmbH ; KB Bau;;Krause\r\nAnna Müller\n")
    assert found == [
        SiteEntry("Anna Müller", Kind.CLIENT),
        SiteEntry("Krause Bau GmbH", Kind.CLIENT, ("KB Bau", "Krause")),
    ]


def test_columns_of_a_table_make_a_name_together() -> None:
    for separator in ";,\t|":
        text = TABLE.replace(";", separator)
        assert table(text, "Vorname", "Nachname") == ["Anna Müller", "Otto Lange"]
        assert table(text.partition("\n")[2], "3", "2") == ["Anna Müller", "Otto Lange"]


def test_quoted_cells_keep_what_separates() -> None:
    assert table('Name,Ort\n"Müller, Anna",Hamm\n"Krause ""Bau""",Unna\n', "Name") == ["Müller, Anna", 'Krause "Bau"']


def test_a_table_of_one_column_needs_none_named() -> None:
    assert table("Anna Müller\nOtto Lange\n") == ["Anna Müller", "Otto Lange"]
    assert table("") == []


@pytest.mark.parametrize(("columns", "says"), [
    ((), "say which column has the name with --column: Nr, Nachname, Vorname, Ort"),
    (("Name",), "--column Name: the first row has Nr, Nachname, Vorname, Ort"),
    (("5",), "columns 1 to 4"),
    (("0",), "columns 1 to 4"),
])  # fmt: skip
def test_a_column_that_is_not_there_is_told_with_those_that_are(columns: tuple[str, ...], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        table(TABLE, *columns)


@pytest.mark.parametrize("content", ["Müller\n".encode(), "\ufeffMüller\n".encode(), "Müller\n".encode("cp1252")])
def test_files_of_older_programs_are_read(content: bytes) -> None:
    assert names(lines(importing.text_of(content))) == ["Müller"]


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(BadRequest, match="save it as CSV or text"):
        importing.text_of(b"\x81\x8d\xff")


@pytest.mark.parametrize("line", ["x", "?", "a" * 201, "An\x07na", "An\u200bna", "--", "Anna; ?"])
def test_a_line_that_is_no_name_is_told_by_its_number_and_not_repeated(line: str) -> None:
    with pytest.raises(BadRequest, match="line 2 is no name") as caught:
        lines(f"Otto Lange\n{line}\n")
    assert line not in str(caught.value) or len(line) < 3


def test_a_table_that_is_broken_is_refused_without_what_it_holds() -> None:
    with pytest.raises(BadRequest, match="no table") as caught:
        table('Name\n"Müller" x\n', "Name")
    assert "Müller" not in str(caught.value)


@given(st.text(max_size=300))
def test_any_text_gives_names_or_a_refusal(text: str) -> None:
    for read in (lines, lambda text: importing.table(text, Kind.CLIENT, ("1",))):
        try:
            found = read(text)
        except BadRequest:
            continue
        assert all(entry.name == " ".join(entry.name.split()) and len(entry.name) >= 2 for entry in found)
