"""Generated documents: everything personal in them is known, and nothing else looks like it."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
from stdnum import iban, luhn
from stdnum.de import idnr

from appliance.privacy.kinds import Kind
from benchmarks.cases import of_document, of_text, strings
from benchmarks.documents import Document, documents
from benchmarks.identities import KINDS, Person, Registry
from benchmarks.labelled import Label, Labelled


@pytest.fixture(scope="module")
def made() -> list[Document]:
    return list(documents(400, seed=7))


def test_the_same_seed_makes_the_same(made: list[Document]) -> None:
    assert list(documents(400, seed=7)) == made
    assert list(documents(5, seed=8)) != made[:5]


def test_all_forms_and_both_languages_come(made: list[Document]) -> None:
    languages = Counter(each.language for each in made)
    assert 0.6 < languages["de"] / len(made) < 0.8
    assert {each.form for each in made} == {"letter", "mail", "chat", "form", "notes", "tool", "json", "csv"}
    assert {kind for each in made for kind, _ in each.originals} == set(KINDS.values())


def test_every_original_stands_in_its_document(made: list[Document]) -> None:
    for each in made:
        text = "\n".join(strings(each.payload))
        assert each.originals, each.id
        assert all(value in text for _, value in each.originals), each.id


def test_no_name_stands_where_it_is_nobodys(made: list[Document]) -> None:
    for each in made:
        names = {word.lower() for kind, value in each.originals if kind is Kind.PERSON for word in words(value)}
        rest = " ".join(strings(each.payload))
        for _, value in sorted(each.originals, key=lambda one: -len(one[1])):
            rest = rest.replace(value, " ")
        assert not names & {word.lower() for word in words(rest)}, each.id


def words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]{2,}", text)


def test_names_are_many_and_of_varied_origin() -> None:
    registry = Registry()
    assert len(registry.first) >= 300
    assert len(registry.last) >= 500
    assert {"Öztürk", "Nguyen", "Kowalczyk", "O'Brien", "al-Masri", "Lange", "Weiß", "van der Meer"} <= {*registry.last}


def test_most_identifiers_have_a_right_checksum() -> None:

    people = [Person("Anna", "Weiß", "de", seed) for seed in range(300)]
    for right in (
        sum(iban.is_valid(each.iban) for each in people),
        sum(luhn.is_valid(each.card.replace(" ", "")) for each in people),
        sum(idnr.is_valid(each.tax) for each in people),
    ):
        assert 0.75 < right / len(people) < 0.95


def test_json_within_strings_is_taken_apart() -> None:
    payload = {"a": [{"b": '{"c": "Wei\\u00df"}'}, "{kein JSON"], "d": 1}
    assert list(strings(payload)) == ["a", "b", "c", "Weiß", "{kein JSON", "d"]


def test_a_case_says_what_leaked() -> None:
    document = Document(
        "1", "de", "tool",
        {"messages": [{"content": "Für Anna Weiß"}, {"arguments": json.dumps({"an": "a.weiss@firma.local"})}]},
        ((Kind.PERSON, "Anna Weiß"), (Kind.EMAIL, "a.weiss@firma.local")),
    )  # fmt: skip
    case = of_document(document)
    assert case.leaks(document.payload) == [(Kind.PERSON, "Anna Weiß"), (Kind.EMAIL, "a.weiss@firma.local")]
    masked = {"messages": [{"content": "Für Klient_001"}, {"arguments": json.dumps({"an": "Kennung_001"})}]}
    assert case.leaks(masked) == []
    with pytest.raises(ValueError, match="shorter"):
        case.leaks({"messages": []})


def test_a_text_is_asked_as_a_message() -> None:
    case = of_text(Labelled("1", "Frau Lange", (Label(5, 10, Kind.PERSON),), "de", "office"))
    assert case.payload["messages"] == [{"role": "user", "content": "Frau Lange"}]
    sent = json.loads(json.dumps(case.payload).replace("Lange", "Klient_001"))
    assert case.leaks(case.payload) == [(Kind.PERSON, "Lange")]
    assert case.leaks(sent) == []
