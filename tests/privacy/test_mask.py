"""One placeholder for each value, over a whole conversation, and back again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.privacy.forms import Traces, remains
from appliance.privacy.kinds import STEMS, Kind, Span
from appliance.privacy.mask import Mask
from appliance.privacy.restore import Restorer

P, C, O, L = Kind.PERSON, Kind.CLIENT, Kind.ORGANISATION, Kind.PLACE  # noqa: E741 - as short as their finds are many


def masked(
    texts: str | Sequence[str], finds: Mapping[str, Kind], generalise: Sequence[str] = ()
) -> tuple[list[str], Mask]:
    """Each of `finds` is found where it first stands in each text, and nowhere else."""
    texts = [texts] if isinstance(texts, str) else texts
    spans = [
        [
            Span(text.index(value), text.index(value) + len(value), kind)
            for value, kind in finds.items()
            if value in text
        ]
        for text in texts
    ]
    mask = Mask(generalise)
    return mask.apply(texts, spans), mask


def restored(text: str, mask: Mask) -> str:
    restorer = Restorer(mask.originals)
    return restorer.feed("0", text) + restorer.finish("0")


def numbered(text: str) -> str:
    """Placeholders without the letter that tells one spelling of a value from the others."""
    return re.sub(rf"((?:{'|'.join(STEMS)})_[0-9]+)[b-r]", r"\1", text)


@pytest.mark.parametrize(
    ("text", "finds", "expected"),
    [
        ("Anna Müller und Frau Müller", {"Anna Müller": P}, "Klient_001 und Frau Klient_001"),
        ("Anna Müller, müller, MÜLLER, Mueller", {"Anna Müller": P}, "Klient_001, Klient_001, Klient_001, Klient_001"),
        ("Frau Müller: Anna Müllers Hund, MÜLLERS Katze", {"Müller": P, "Anna Müllers": P},
         "Frau Klient_001: Klient_001s Hund, Klient_001S Katze"),
        ("Anna Müllers Hund, Frau Peters", {"Anna Müllers": P, "Peters": P}, "Klient_001 Hund, Frau Klient_002"),
        ("Anna Koch, Peter Weber Koch", {"Anna": P, "Koch": P, "Peter Weber": P}, "Klient_001, Klient_002"),
        ("Herr Dr. Peter Koch und Koch", {"Herr Dr. Peter Koch": P}, "Herr Dr. Klient_001 und Klient_001"),
        ("Frau Müller trifft A. Müller", {"Müller": P}, "Frau Klient_001 trifft Klient_001"),
        ("Anna Müller, A. Müller, B. Müller", {"Anna Müller": P, "B. Müller": P}, "Klient_001, Klient_001, Klient_002"),
        ("Müller, Anna: Anna Müller", {"Müller, Anna": P}, "Klient_001: Klient_001"),
        ("Anna Müller, Peter Müller und Herr Müller", {"Anna Müller": P, "Peter Müller": P},
         "Klient_001, Klient_002 und Herr Klient_003"),
        ("Frau Anna Müller, Herr Müller, Frau Müller", {"Anna Müller": P},
         "Frau Klient_001, Herr Klient_002, Frau Klient_001"),
        ("Anna Müller und Anna Koch, dann Anna", {"Anna Müller": P, "Anna Koch": P},
         "Klient_001 und Klient_002, dann Klient_003"),
        ("Anna Maria Müller, Anna Müller", {"Anna Maria Müller": P}, "Klient_001, Klient_001"),
        ("Ursula von der Leyen, Frau von der Leyen", {"Ursula von der Leyen": P, "Leyen": P},
         "Klient_001, Frau von der Klient_001"),
        ("Müller-Lüdenscheidt und Mueller-Luedenscheidt", {"Müller-Lüdenscheidt": P}, "Klient_001 und Klient_001"),
        ("M ü l l e r, Mül**ler**, M\u200büller, Mu\u0308ller, Мüllеr", {"Mül**ler": P},
         "Klient_001, Klient_001**, Klient_001, Klient_001, Klient_001"),
        ("get_anna_mueller(annaMueller)", {"anna_mueller": P}, "get_Klient_001(Klient_001)"),
        ("Klaus' Auto, Klaus's Auto", {"Klaus": P}, "Klient_001' Auto, Klient_001's Auto"),
        ("Die Weber AG, weber ag, Weber-AG, WEBER AG", {"Weber AG": O},
         "Die Firma_001, Firma_001, Firma_001, Firma_001"),
        ("Die Weber GmbH und Herr Weber", {"Weber GmbH": C}, "Die Klient_001 und Herr Weber"),
        ("Ulm und ULM, nicht Ulmen", {"Ulm": L}, "Ort_001 und Ort_001, nicht Ulmen"),
        ("DE89 3704 0044, DE8937040044", {"DE89 3704 0044": Kind.BANK_ACCOUNT}, "Kennung_001, Kennung_001"),
        ("a.b@x.de, A.B@X.DE", {"a.b@x.de": Kind.EMAIL}, "Kennung_001, Kennung_001"),
        ("Herr Schneider, Schneidersche Akten, xSCHNEIDERx", {"Schneider": P},
         "Herr Klient_001, Klient_002 Akten, Klient_003"),
        ("Su-bin kommt, Su-bins Akte", {"Su": P}, "Klient_001 kommt, Klient_001s Akte"),
        ("Baur, Bauer", {"Baur": P, "Bauer": P}, "Klient_001, Klient_002"),
    ],
)  # fmt: skip
def test_who_is_who(text: str, finds: Mapping[str, Kind], expected: str) -> None:
    (sent,), mask = masked(text, finds)
    assert numbered(sent) == expected
    assert restored(sent, mask) == text


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("Lange", "Herr Lange wartet lange. Lange Zeit. Auch Lange kommt.",
         "Herr Klient_001 wartet lange. Lange Zeit. Auch Klient_001 kommt."),
        ("Weiß", "Frau Weiß weiß nichts von Weiß.", "Frau Klient_001 weiß nichts von Klient_001."),
        ("Koch", "Herr Koch ist kein koch", "Herr Klient_001 ist kein Klient_001"),
        ("Max", "Max zahlt max. 5 Euro an Max", "Klient_001 zahlt max. 5 Euro an Klient_001"),
    ],
)  # fmt: skip
def test_a_name_that_is_an_ordinary_word(name: str, text: str, expected: str) -> None:
    masked_text, mask = masked(text, {name: P})
    assert [numbered(text) for text in masked_text] == [expected]
    assert remains(expected.encode(), mask.traces) is None


def test_it_holds_over_a_conversation() -> None:
    texts, mask = masked(
        ["Ich bin Anna Müller.", "Hallo Frau Müller!", '{"client": "mueller"}', "anna", "Firma Weber AG"],
        {"Anna Müller": P, "Weber AG": O},
    )
    assert texts == [
        "Ich bin Klient_001.", "Hallo Frau Klient_001b!", '{"client": "Klient_001c"}', "Klient_002", "Firma Firma_001",
    ]  # fmt: skip
    assert mask.originals == {
        "Klient_001": "Anna Müller", "Klient_001b": "Müller", "Klient_001c": "mueller", "Klient_002": "anna",
        "Firma_001": "Weber AG",
    }  # fmt: skip
    assert mask.found == {"person": 2, "organisation": 1}


def test_the_same_text_is_the_same_everywhere() -> None:
    mask = Mask(())
    found = [Span(0, 5, Kind.REFERENCE)]
    assert mask.apply(["AZ-12 alt", "x", "AZ-12 alt"], [found, [], []]) == ["Kennung_001 alt", "x", "Kennung_001 alt"]


def test_overlaps_are_one() -> None:
    mask = Mask(())
    spans = [Span(0, 4, P), Span(2, 11, O), Span(5, 11, P)]
    assert mask.apply(["Anna Müller kommt"], [spans]) == ["Firma_001 kommt"]


def test_a_find_is_of_whole_words_without_quotes() -> None:
    mask = Mask(())
    assert mask.apply(["Die »Anna Mül«ler"], [[Span(4, 13, P)]]) == ["Die »Klient_001«ler"]
    assert Mask(()).apply(["xAnnax."], [[Span(1, 4, P)]]) == ["Klient_001."]


@pytest.mark.parametrize(
    "text", ["Klient_001", "klient 001", "Klient\\_001", "KLIENT_001", "Firma_002s", "Klient-001", "Ort_1234567"]
)
def test_what_looks_like_a_placeholder_comes_back_as_it_was(text: str) -> None:
    masked_texts, mask = masked([f"Anna Müller schreibt {text}", "Weber AG"], {"Anna Müller": P, "Weber AG": O})
    assert masked_texts[0].startswith("Klient_001 schreibt ")
    assert masked_texts[0] != f"Klient_001 schreibt {text}"
    assert restored(masked_texts[0], mask) == f"Anna Müller schreibt {text}"


@pytest.mark.parametrize(
    ("kind", "original", "expected"),
    [
        (Kind.AGE, "34 Jahre", "30-39 Jahre"),
        (Kind.AGE, "34-jährige", "30-39-jährige"),
        (Kind.AGE, "aged 8", "aged 0-9"),
        (Kind.AGE, "97", "90+"),
        (Kind.AGE, "vierunddreißig", "Alter_001"),
        (Kind.DATE_OF_BIRTH, "03.03.1978", "1978"),
        (Kind.DATE_OF_BIRTH, "3. März 1978", "1978"),
        (Kind.DATE_OF_BIRTH, "3/4/78", "Datum_001"),
        (Kind.POSTCODE, "80331", "80xxx"),
        (Kind.POSTCODE, "SW1A 1AA", "Ort_001"),
    ],
)
def test_what_is_made_coarser(kind: Kind, original: str, expected: str) -> None:
    texts, mask = masked([f"Er ist {original}.", original], {original: kind}, ["age", "date_of_birth", "postcode"])
    assert texts == [f"Er ist {expected}.", expected]
    assert masked(original, {original: kind})[0][0].endswith("_001")
    if kind is not Kind.AGE:
        assert remains(f"Er ist {original}.".encode(), mask.traces)
    assert not any(value in mask.coarse for value in mask.originals)


def test_a_name_has_three_digits_or_more() -> None:
    texts = [f"x{number}@example.org" for number in range(1001)]
    mask = Mask(())
    found = mask.apply(texts, [[Span(0, len(text), Kind.EMAIL)] for text in texts])
    assert (found[0], found[998], found[1000]) == ("Kennung_001", "Kennung_999", "Kennung_1001")
    assert [restored(text, mask) for text in found] == texts


WORDS = st.sampled_from([
    "Anna", "Müller", "Mueller", "müllers", "Koch", "Weber", "AG", "Frau", "Herr", "A.", "Klient_001", "klient 002",
    "Firma_001s", "und", "lange", "Lange", "12345", "80331", "x@y.de", "-", "\n", "**", "\u200b", "{", "\\_", "007",
])  # fmt: skip
TEXTS = st.one_of(st.text(max_size=40), st.lists(WORDS, max_size=12).map(" ".join), st.lists(WORDS).map("".join))


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[str], list[list[Span]]]:
    texts = draw(st.lists(TEXTS, min_size=1, max_size=4))
    spans = []
    for text in texts:
        places = draw(st.lists(st.tuples(st.integers(0, len(text)), st.integers(0, len(text))), max_size=4))
        kinds = draw(st.lists(st.sampled_from(list(Kind)), min_size=4, max_size=4))
        spans.append([Span(min(at), max(at), kind) for at, kind in zip(places, kinds, strict=False) if at[0] != at[1]])
    return texts, spans


@settings(deadline=None)
@given(conversations())
def test_whatever_is_found_nothing_of_it_remains(case: tuple[list[str], list[list[Span]]]) -> None:
    texts, spans = case
    mask = Mask(())
    given_out = "\n\n\n\n".join(mask.apply(texts, spans))
    placeholder = re.compile(rf"(?:{'|'.join(STEMS)})_\d{{3,}}(?:[b-r](?=[sS]?(?!\w)))?")
    assert Traces(mask.traces, mask.names).remain(placeholder.sub(" ", given_out).encode("utf-8", "replace")) in (
        None,
        "run together",
    )


@settings(deadline=None)
@given(conversations())
def test_whatever_is_found_all_comes_back(case: tuple[list[str], list[list[Span]]]) -> None:
    texts, spans = case
    mask = Mask(())
    assert [restored(text, mask) for text in mask.apply(texts, spans)] == texts


def test_a_value_found_as_two_kinds_of_which_one_is_made_coarser() -> None:
    text = "geb. 23.11.1974, am 23.11.1974"
    finds = [Span(5, 15, Kind.DATE_OF_BIRTH), Span(20, 30, Kind.DATE)]
    assert Mask(["date_of_birth"]).apply([text], [finds]) == ["geb. 1974, am Datum_001"]
