"""A site's names are found in whatever form they stand in a text, and words that only look like them aren't."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from appliance.privacy.detect.normalise import normalise
from appliance.privacy.kinds import Kind, Span
from appliance.privacy.site.entry import SiteEntry
from appliance.privacy.site.matcher import Matcher
from appliance.privacy.site.readings import LEGAL_WORDS, TITLES

ORDINARY = frozenset(["lange", "langes", "sonne", "bau", "bauen", "apollo", "it", "sap", "weiß", "koch"])


def ordinary(word: str) -> bool:
    return word in ORDINARY


def entry(name: str, kind: Kind = Kind.CLIENT, *aliases: str) -> SiteEntry:
    return SiteEntry(name, kind, aliases)


def found(text: str, *entries: SiteEntry) -> list[str]:
    """What is found, as it stands in the text."""
    normal = normalise(text)
    spans = Matcher(entries, ordinary).find(normal.text)
    check(spans, normal.text)
    places = [normal.given(span.start, span.end) for span in spans]
    return [text[start:end] for start, end in places]


def check(spans: list[Span], text: str) -> None:
    ends = [0, *(span.end for span in spans)]
    assert all(before <= span.start < span.end <= len(text) for before, span in zip(ends, spans, strict=False))


ANNA = entry("Anna Müller")


@pytest.mark.parametrize(("text", "expected"), [
    ("Anna Müller kommt", "Anna Müller"),
    ("ANNA MÜLLER", "ANNA MÜLLER"),
    ("anna müller", "anna müller"),
    ("anna mueller", "anna mueller"),
    ("Anna Muller", "Anna Muller"),
    ("Müller, Anna", "Müller, Anna"),
    ("Müller,Anna", "Müller,Anna"),
    ("Müller; Anna", "Müller; Anna"),
    ("Müller\tAnna", "Müller\tAnna"),
    ("wegen der Müller, Anna", "Müller, Anna"),
    ("Müller Anna", "Müller Anna"),
    ("A. Müller", "A. Müller"),
    ("A.Müller", "A.Müller"),
    ("Müller, A.", "Müller, A"),
    ("Frau Müller", "Müller"),
    ("Frau Dr. Müller", "Müller"),
    ("frau müller", "müller"),
    ("Familie Müller", "Müller"),
    ("die Müllers", "Müller"),
    ("Müllers Akte", "Müller"),
    ("Anna Müllers Akte", "Anna Müller"),
    ("Müller's Akte", "Müller"),
    ("Müller’s Akte", "Müller"),
    ("MUELLERS AKTE", "MUELLER"),
    ("die Müllersche Erbschaft", "Müllersche"),
    ("die Müller-Akte", "Müller"),
    ("Akte Mueller_Anna.pdf", "Mueller_Anna"),
    ("anna.mueller@example.org", "anna.mueller"),
    ("a-mueller", "mueller"),
    ("Benutzer amueller", "amueller"),
    ("AnnaMueller2024", "AnnaMueller"),
    ("mueller2024", "mueller"),
    ("Anna Maria Müller", "Anna Maria Müller"),
    ("Anna M. Müller", "Anna M. Müller"),
    ("Anna\nMüller", "Anna\nMüller"),
    ("Anna  Müller", "Anna  Müller"),
    ("Anna\u00a0Müller", "Anna\u00a0Müller"),
    ("An\u200bna Mü\u00adller", "An\u200bna Mü\u00adller"),
    ("Anna \u041cüller", "Anna \u041cüller"),  # a Cyrillic capital
    ("Anna **Müller**", "Anna **Müller"),
    ("Anna Mu\u0308ller", "Anna Mu\u0308ller"),
    ("M&uuml;ller", "M&uuml;ller"),
    ("(Müller)", "Müller"),
    ("„Müller“", "Müller"),
])  # fmt: skip
def test_a_person_is_found_in_every_form(text: str, expected: str) -> None:
    assert found(text, ANNA) == [expected]


@pytest.mark.parametrize("text", [
    "Anna kommt", "die Müllerei", "Anna Schmidt", "Mulle", "eine Mühle", "Millerntor", "", " ", "Herr Meier", "muell",
])  # fmt: skip
def test_other_words_are_not_that_person(text: str) -> None:
    assert found(text, ANNA) == []


LANGE = entry("Otto Lange", Kind.EMPLOYEE)


@pytest.mark.parametrize(("text", "expected"), [
    ("Das dauert lange.", []),
    ("Lange hat es gedauert.", []),
    ("Es war so. Lange genug.", []),
    ("- Lange Leitung", []),
    ("Herr Lange kommt", ["Lange"]),
    ("herr lange kommt", ["lange"]),
    ("Otto Lange", ["Otto Lange"]),
    ("otto lange", ["otto lange"]),
    ("O. Lange", ["O. Lange"]),
    ("Lange, Otto", ["Lange, Otto"]),
    ("mit Lange gesprochen", ["Lange"]),
    ("von H. Lange", ["Lange"]),
    ("Langes Akte liegt hier", []),
    ("wegen Langes Akte", ["Lange"]),
    ("Herr Lange, Otto Lange und Anna Lange", ["Lange", "Otto Lange", "Lange"]),
])  # fmt: skip
def test_a_surname_that_is_an_ordinary_word_is_one_where_it_must_be(text: str, expected: list[str]) -> None:
    assert found(text, LANGE) == expected


@pytest.mark.parametrize(("name", "text", "expected"), [
    ("Müller, Anna", "Anna Müller", "Anna Müller"),
    ("Dr. Anna Müller", "Frau Müller", "Müller"),
    ("Prof. Dr. med. Anna Müller", "Anna Müller", "Anna Müller"),
    ("Frau Anna Müller", "A. Müller", "A. Müller"),
    ("Eva von Weizsäcker", "Frau von Weizsäcker", "von Weizsäcker"),
    ("Eva von Weizsäcker", "Eva v. Weizsaecker", "Eva v. Weizsaecker"),
    ("Eva von der Heide", "von der Heide, Eva", "von der Heide, Eva"),
    ("Ludwig van Beethoven", "Beethovens Werk", "Beethoven"),
    ("Eva Müller-Lüdenscheidt", "Müller Lüdenscheidt", "Müller Lüdenscheidt"),
    ("Eva Müller-Lüdenscheidt", "Frau Lüdenscheidt", "Lüdenscheidt"),
    ("Eva Müller-Lüdenscheidt", "MÜLLER-LÜDENSCHEIDTS", "MÜLLER-LÜDENSCHEIDT"),
    ("Eva Müller-Lüdenscheidt", "MuellerLuedenscheidt", "MuellerLuedenscheidt"),
    ("Hans-Peter Kröger", "Hanspeter Kröger", "Hanspeter Kröger"),
    ("Hans-Peter Kröger", "H.-P. Kröger", "H.-P. Kröger"),
    ("Hans-Peter Kröger", "Peter Kröger", "Peter Kröger"),
    ("Hans-Peter Kröger", "Krögers Hans", "Krögers Hans"),
    ("Jürgen Groß", "Juergen Gross", "Juergen Gross"),
    ("JUERGEN GROSS", "Jürgen Groß", "Jürgen Groß"),
    ("Jose Garcia", "José García", "José García"),
    ("Łukasz Wałęsa", "Lukasz Walesa", "Lukasz Walesa"),
    ("Nguyễn Văn Anh", "Nguyen Van Anh", "Nguyen Van Anh"),
    ("Siobhan O'Brien", "Siobhan O’Brien", "Siobhan O’Brien"),
    ("Siobhan O'Brien", "OBrien", "OBrien"),
    ("Hans", "Hans kommt", "Hans"),
    ("Astrid Ek", "Frau Ek", "Ek"),
    ("H. Stüber", "H. Stüber", "H. Stüber"),
    ("Prof. Dr. h.c. Eva Stüber", "E. Stüber", "E. Stüber"),
    ("García López, Ana", "Frau García", "García"),
    ("Karl von und zu Guttenberg", "Herr zu Guttenberg", "zu Guttenberg"),
    ("Karl von und zu Guttenberg", "Karl Guttenberg", "Karl Guttenberg"),
    ("Grass", "Grassens Werk", "Grass"),
    ("Schmitz", "Schmitz’ Akte", "Schmitz"),
])  # fmt: skip
def test_people_are_found_whatever_their_names_are_like(name: str, text: str, expected: str) -> None:
    assert found(text, entry(name)) == [expected]


@pytest.mark.parametrize("name", [
    "Anna und Otto Müller", "Müller, Anna und Otto", "Anna & Otto Müller", "Eheleute Anna u. Otto Müller",
    "Dr. Anna Müller und Otto Müller", "Herrn Otto und Frau Anna Müller",
])  # fmt: skip
@pytest.mark.parametrize(("text", "expected"), [
    ("Anna Müller", "Anna Müller"), ("Müller, Otto", "Müller, Otto"), ("Frau Müller", "Müller"),
    ("O. Müller", "O. Müller"), ("Müllers", "Müller"),
])  # fmt: skip
def test_of_a_couple_both_are_found(name: str, text: str, expected: str) -> None:
    assert found(text, entry(name)) == [expected]


def test_a_couple_may_have_two_surnames() -> None:
    assert found("Frau Kröger und Herr Lange", entry("Anna Kröger und Otto Lange")) == ["Kröger", "Lange"]
    assert found("Frau Kröger", entry("Herr und Frau Kröger")) == ["Kröger"]


@pytest.mark.parametrize(("name", "text", "expected"), [
    ("Müller GmbH", "Müller GmbH", "Müller GmbH"),
    ("Müller GmbH", "MUELLER GMBH", "MUELLER GMBH"),
    ("Müller GmbH", "Müllers Bilanz", "Müller"),
    ("Müller GmbH", "bei Mueller", "Mueller"),
    ("Müller", "die Müller GmbH & Co. KG zahlt", "Müller GmbH & Co. KG"),
    ("Müller GmbH", "Müller G.m.b.H.", "Müller"),
    ("Müller Bau GmbH & Co. KG", "Müller Bau", "Müller Bau"),
    ("Müller Bau GmbH & Co. KG", "Müller-Bau GmbH", "Müller-Bau GmbH"),
    ("Müller Bau GmbH & Co. KG", "MÜLLERBAU", "MÜLLERBAU"),
    ("MüllerBau GmbH", "Müller Bau", "Müller Bau"),
    ("Krause & Söhne OHG", "Krause und Soehne", "Krause und Soehne"),
    ("Krause und Söhne OHG", "Krause & Söhne", "Krause & Söhne"),
    ("Deutsche Werke AG", "der Deutschen Werke", "Deutschen Werke"),
    ("Deutsche Werke AG", "den Deutschen Werken AG", "Deutschen Werken AG"),
    ("Städtisches Klinikum Hamm", "des Städtischen Klinikums Hamm", "Städtischen Klinikums Hamm"),
    ("Turnverein 1860 e.V.", "Turnverein 1860", "Turnverein 1860"),
    ("Turnverein 1860", "Turnverein-1860 e. V.", "Turnverein-1860 e. V"),
    ("Sonne GmbH", "Sonne GmbH", "Sonne GmbH"),
    ("Sonne GmbH", "sonne gmbh", "sonne gmbh"),
    ("Sonne GmbH", "die Firma Sonne", "Sonne"),
    ("Firma Krause", "Krauses Rechnung", "Krause"),
    ("SAP SE", "von SAP gekauft", "SAP"),
    ("SAP SE", "SAPs Bilanz", "SAP"),
    ("3M Deutschland GmbH", "3M Deutschland", "3M Deutschland"),
    ("X200", "X-200", "X-200"),
])  # fmt: skip
@pytest.mark.parametrize("kind", [Kind.CLIENT, Kind.ORGANISATION])
def test_companies_are_found_with_and_without_their_legal_form(name: str, text: str, expected: str, kind: Kind) -> None:
    assert found(text, entry(name, kind)) == [expected]


@pytest.mark.parametrize(("name", "text"), [
    ("Sonne GmbH", "eine sonne"), ("Sonne GmbH", "Sonne scheint."), ("SAP SE", "er sap"), ("IT GmbH", "it is"),
    ("Krause Bau GmbH", "bauen"), ("Bau AG", "wir bauen"), ("Müller GmbH", "eine GmbH"),
])  # fmt: skip
def test_what_is_no_company_is_none(name: str, text: str) -> None:
    assert found(text, entry(name, Kind.ORGANISATION)) == []


@pytest.mark.parametrize(("name", "text", "expected"), [
    ("Blaue Lagune", "die Kosten der Blauen Lagune", "Blauen Lagune"),
    ("Blaue Lagune", "BLAUE-LAGUNE", "BLAUE-LAGUNE"),
    ("Blaue Lagune", "blaue_lagune.xlsx", "blaue_lagune"),
    ("Projekt Nordlicht", "Nordlichts Budget", "Nordlicht"),
    ("Nordlicht", "das Nordlicht-Team", "Nordlicht"),
    ("Apollo", "Projekt Apollo", "Apollo"),
    ("Apollo", "für Apollo", "Apollo"),
    ("SkyLark", "Sky Lark", "Sky Lark"),
])  # fmt: skip
def test_projects_are_found(name: str, text: str, expected: str) -> None:
    assert found(text, entry(name, Kind.PROJECT)) == [expected]


def test_aliases_are_found_like_names() -> None:
    krause = entry("Krause Hoch- und Tiefbau GmbH", Kind.CLIENT, "KHT", "Baukrause")
    assert found("KHT, Baukrause und die Krause Hoch- und Tiefbau GmbH", krause) == [
        "KHT", "Baukrause", "Krause Hoch- und Tiefbau GmbH",
    ]  # fmt: skip
    assert found("kht", krause) == []


def test_a_find_has_the_kind_of_its_list_and_what_is_beside_a_name_decides_between_two() -> None:
    matcher = Matcher([entry("Anna Krause", Kind.EMPLOYEE), entry("Krause GmbH", Kind.ORGANISATION)])

    def kinds(text: str) -> list[Kind]:
        return [span.kind for span in matcher.find(text)]

    assert kinds("Anna Krause") == kinds("Frau Krause") == kinds("Krause") == [Kind.EMPLOYEE]
    assert kinds("Krause GmbH") == [Kind.ORGANISATION]


def test_the_surer_a_find_the_higher_it_scores() -> None:
    matcher = Matcher([ANNA, LANGE], ordinary)
    scores = [matcher.find(text)[0].score for text in ("Anna Müller", "Müller", "und Lange")]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 3


@pytest.mark.parametrize("kind", [Kind.CLIENT, Kind.EMPLOYEE, Kind.ORGANISATION])
@pytest.mark.parametrize("name", ["Herr", "Frau Dr.", "GmbH", "und", "GmbH & Co. KG", "von", "Firma"])
def test_what_a_careless_export_leaves_of_a_name_is_none(name: str, kind: Kind) -> None:
    assert found("Herr und Frau von der Firma GmbH & Co. KG, Dr.", entry(name, kind)) == []


def test_a_surname_that_many_have_is_ready_soon_and_tells_them_apart_from_others() -> None:
    matcher = Matcher([entry(f"Anna{'x' * number} Müller") for number in range(2_000)])
    assert [span.start for span in matcher.find("Annaxxxxx Müller")] == [0]
    assert [span.start for span in matcher.find("Berta Müller")] == [6]


def test_lists_that_are_empty_find_nothing() -> None:
    assert Matcher([]).find("Anna Müller") == []


LETTERS = st.text("abcdefghijklmnoprstuwzäöüß", min_size=4, max_size=12)


@given(LETTERS.map(str.capitalize), LETTERS.map(str.capitalize), st.sampled_from(("", "s", "'s")), st.integers(0, 5))
def test_no_spelling_of_any_name_escapes(given_name: str, surname: str, ending: str, form: int) -> None:
    """Any case, umlauts in three ways, either order, with whatever ending: both names are covered."""
    assume(given_name != surname and not {given_name.lower(), surname.lower()} & (TITLES | LEGAL_WORDS))
    spelt = [
        f"{given_name} {surname}", f"{given_name.upper()} {surname.upper()}", f"{given_name.lower()} {surname.lower()}",
        unicodedata.normalize("NFD", f"{given_name} {surname}"), f"{surname}, {given_name}",
        f"{given_name} {surname}".replace("ä", "ae").replace("ö", "oe").replace("ü", "ue").replace("ß", "ss"),
    ][form]  # fmt: skip
    text = f"Heute schrieb {spelt}{ending} wegen der Akte."
    covered = "".join(found(text, entry(f"{given_name} {surname}")))
    assert len(covered) >= len(spelt) - (1 if form == 4 else 0)


@given(st.text(max_size=200))
def test_any_text_is_taken(text: str) -> None:
    check(Matcher([ANNA, LANGE, entry("Krause & Söhne GmbH")], ordinary).find(text), text)


@given(st.lists(st.text(max_size=30), max_size=5), st.sampled_from(Kind))
def test_any_name_is_taken(names: list[str], kind: Kind) -> None:
    text = " ".join(names)
    check(Matcher([SiteEntry(name, kind) for name in names], ordinary).find(text), text)
