"""What counts as found and what as leaked."""

from __future__ import annotations

import pytest

from appliance.privacy.kinds import Kind, Span
from benchmarks.judging import Share, covered, leaks, overmasked, right
from benchmarks.labelled import Label, Labelled, read


def text(marked: str) -> Labelled:
    plain, labels = read(marked)
    return Labelled("1", plain, labels, "de", "office")


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0)]
)
def test_intervals_are_wilsons(hits: int, of: int, low: float, high: float) -> None:
    assert Share(hits, of).interval == pytest.approx((low, high), abs=1e-4)


def test_nothing_is_no_share() -> None:
    assert str(Share()) == "-"
    assert Share().interval == (0, 1)


def test_a_name_is_found_when_every_word_of_it_is() -> None:
    each = text("Frau [[person:Anna Weiß]] kommt")
    (label,) = each.labels
    both = [Span(5, 9, Kind.PERSON), Span(10, 14, Kind.PERSON)]
    assert covered(label, each.text, both)
    assert not covered(label, each.text, both[:1])
    assert not covered(label, each.text, [])


def test_a_genitive_may_lie_outside() -> None:
    each = text("[[person:Müllers]] Akte")
    assert covered(each.labels[0], each.text, [Span(0, 6, Kind.PERSON)])
    assert not covered(each.labels[0], each.text, [Span(0, 5, Kind.PERSON)])


def test_finds_are_right_wrong_or_neither() -> None:
    each = Labelled(
        "1", "Frau Weiß liest deutsche Bücher am Montag", (Label(5, 9, Kind.PERSON), Label(16, 24, None)), "de", "x",
        frozenset({Kind.PERSON, Kind.PLACE}),
    )  # fmt: skip
    assert right(Span(0, 9, Kind.ORGANISATION), each) is True
    assert right(Span(25, 31, Kind.PERSON), each) is False
    assert right(Span(16, 24, Kind.PLACE), each) is None
    assert right(Span(35, 41, Kind.DATE), each) is None


def test_what_is_masked_too_much_is_counted_in_characters() -> None:
    each = text("Frau [[person:Weiß]] ist da")
    assert overmasked(each, [Span(0, 9, Kind.PERSON), Span(5, 9, Kind.PERSON)]) == 5


@pytest.mark.parametrize(
    ("marked", "masked", "leaked"),
    [
        ("[[person:Weiß]] weiß es", "Klient_001 weiß es", []),
        ("[[person:weiß]] weiß es", "weiß Klient_001 es", ["weiß"]),
        ("Der Koch heißt [[person:Koch]].", "Der Klient_001 heißt Koch.", ["Koch"]),
        ("Frau [[person:Anna Weiß]]", "Frau Klient_001 Weiß", ["Anna Weiß"]),
        ("[[person:Gesine von Alten]] hier", "Klient_001 von Klient_002 hier", []),
        ("[[person:J. Weiß]]", "J. Klient_001", []),
        ("[[person:Müllers]] Akte", "Klient_001s Akte", []),
        ("[[person:Kai]]-Uwe", "Kai-Uwe", ["Kai"]),
        ("geb. [[date_of_birth:12.03.1984]]", "geb. 1984", []),
        ("geb. [[date_of_birth:12.03.1984]]", "geb. 12.03.1984", ["12.03.1984"]),
        ("geb. [[date_of_birth:12. März 1984]]", "geb. Datum_001 März 1984", ["12. März 1984"]),
        ("Tel. [[phone:0151 23 45 67]]", "Tel. Kennung_001 45 67", ["0151 23 45 67"]),
        ("Tel. [[phone:0151 23 45 67]]", "Tel. Kennung_001 67", []),
        ("Am [[address:Weg 3]]", "Am Weg 3", ["Weg 3"]),
        ("in [[place:Celle]]", "in Celle", []),
    ],
)
def test_what_is_left_is_seen_where_it_was(marked: str, masked: str, leaked: list[str]) -> None:
    each = text(marked)
    found = [each.text[label.start : label.end] for label in leaks(each.labels, each.text, masked)]
    assert found == leaked
