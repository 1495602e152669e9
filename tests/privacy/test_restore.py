"""Placeholders come back as originals, however a model writes them and however its answer is cut."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.privacy.kinds import STEMS
from appliance.privacy.restore import Restorer

ORIGINALS = {
    "Klient_001": "Müller",
    "Klient_002": "Schmitz",
    "Klient_003": "Klient_001",
    "Klient_012": "Weiß",
    "Firma_001": 'Bau "Eck" GmbH',
    "Klient_020": "Beatrice",
    "Ort_001": "Köln",
    "Kennung_001": "a.Müller@firma.local",
    "Kennung_002": "C:\\neu\\Ort_001",
    "Adresse_001": "Am Markt 3\n50667 Köln",
    "Projekt_001": "Phoenix",
    "Datum_1000": "3. März",
}


def restored(text: str, originals: Mapping[str, str] = ORIGINALS, *, json: bool = False) -> str:
    return streamed([text], originals, json=json)[0]


def streamed(
    chunks: Iterable[str], originals: Mapping[str, str] = ORIGINALS, *, json: bool = False
) -> tuple[str, int, int]:
    """What came out in the end, and what was counted."""
    restorer = Restorer(originals)
    shown = "".join([restorer.feed("0", chunk, json=json) for chunk in chunks]) + restorer.finish("0")
    return shown, restorer.restored, restorer.unknown


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("Klient_001", "Müller"),
        ("Klient_001.", "Müller."),
        ("**Klient_001**, *Klient_001*, _Klient_001_, `Klient_001`", "**Müller**, *Müller*, _Müller_, `Müller`"),
        ("[Klient_001] <Klient_001> {{Klient_001}}", "[Müller] <Müller> {{Müller}}"),
        (r"Klient\_001 und **Klient\_002**", "Müller und **Schmitz**"),
        ("Klient 001, Klient\u00a0001, Klient-001, Klient001", "Müller, Müller, Müller, Müller"),
        ("KLIENT_001 und Klient_001", "MÜLLER und Müller"),
        ("KLIENT_012 AUS ORT_001", "WEISS AUS KÖLN"),
        ("KENNUNG_001", "a.Müller@firma.local"),
        ("klient_001", "Müller"),
        ("Klient_1, Klient_01, Klient_12", "Müller, Müller, Weiß"),
        ("Datum_1000", "3. März"),
        ("Klient_001Klient_002", "MüllerSchmitz"),
        ("Klient_001-Klient_002-Vertrag", "Müller-Schmitz-Vertrag"),
        ("Klient_001sche Akte", "Müllersche Akte"),
        ("xWOrt_001", "xWKöln"),
    ],
)
def test_every_way_to_write_a_placeholder(written: str, shown: str) -> None:
    assert restored(written) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Klient_0011 Klient_00 Klient_0 Klient_0001 Klient_",
        "Klient_999 Klient_7 Firma_002",
        "Client_001 Kunde_001 Mandant_001 Klienten_001 Klient_eins",
        "Ort 1, Ort 12, Ort 001234, Datum 2024, Datum 1000, im Alter 30, Klient 1",
        "Antwort_001 Wohnort_001 STANDORT_001 Endklient_001 Vorort 001",
        "Klient_ 001 Klient _001 Klient__001 Klient:001 Klient_٠٠١",
        "Klient Klient_ Klient\\ Kl",
        "",
    ],
)
def test_what_is_none_of_ours_stays_as_it_is(text: str) -> None:
    assert restored(text) == text


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("Klient_001s Akte", "Müllers Akte"),
        ("Klient_002s Akte, Klient_012s Akte, Klient_020s Akte", "Schmitz’ Akte, Weiß’ Akte, Beatrice’ Akte"),
        ("KLIENT_001S AKTE, KLIENT_002S AKTE", "MÜLLERS AKTE, SCHMITZ’ AKTE"),
        ("Klient_002’ Akte", "Schmitz’ Akte"),
        ("Die Akte des Klient_001's liegt auf dem Tisch und Klient_002’s ist weg", "Die Akte des Müllers liegt auf "
         "dem Tisch und Schmitz’ ist weg"),
        ("the file of Klient_002's wife and Klient_001’s", "the file of Schmitz's wife and Müller’s"),
        ("Klient_002's file", "Schmitz's file"),
        ("'Klient_001' 'Klient_002', \"Klient_001\"s", "'Müller' 'Schmitz', \"Müller\"s"),
        ("Ort_001s Dom, Projekt_001s Ende", "Kölns Dom, Phoenix’ Ende"),
        ("Kennung_001s", "a.Müller@firma.locals"),
        ("Klient_002s_akte Klient_002sche", "Schmitzs_akte Schmitzsche"),
        ("Klient_012's", "Weiß's"),
        ("Klient 001s Akte, Klient\\_002s Akte", "Müllers Akte, Schmitz’ Akte"),
    ],
)  # fmt: skip
def test_a_genitive_is_that_of_the_name(written: str, shown: str) -> None:
    assert restored(written) == shown


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("| Klient_001 | Ort_001 |\n|---|---|\n# Klient_001", "| Müller | Köln |\n|---|---|\n# Müller"),
        ("Name;Ort\nKlient_001;Ort_001\n", "Name;Ort\nMüller;Köln\n"),
        ("https://x.example/klienten/Klient_001?q=Ort_001&n=%20Klient_001#Ort_001",
         "https://x.example/klienten/Müller?q=Köln&n=%20Müller#Köln"),
        ("<mailto:Kennung_001> Klient_001@x.example", "<mailto:a.Müller@firma.local> Müller@x.example"),
        ("def akte_Klient_001():\n    print(f'\\nKLIENT_001\\tklient_001')", "def akte_Müller():\n    print(f'\\nMÜLLER"
         "\\tMüller')"),
        ("/akten/Klient_001_2024.pdf, Rechnung_Klient_001.pdf", "/akten/Müller_2024.pdf, Rechnung_Müller.pdf"),
        ('{"Klient_001": "Ort_001"}', '{"Müller": "Köln"}'),
    ],
)  # fmt: skip
def test_in_every_format(written: str, shown: str) -> None:
    assert restored(written) == shown


def test_a_model_that_drops_repeats_and_invents() -> None:
    assert streamed(["Es ist niemand da."]) == ("Es ist niemand da.", 0, 0)
    assert streamed(["Klient_001, Klient_001 und wieder Klient_001"])[1:] == (3, 0)
    invented = r"Klient_999, FIRMA\_777, Ort 077 und Klient_7; Client_001"
    assert streamed([invented]) == (invented, 0, 4)


def test_what_was_put_back_is_not_looked_at_again() -> None:
    assert restored("Klient_003 Klient_003s Kennung_002") == "Klient_001 Klient_001s C:\\neu\\Ort_001"
    assert streamed(["Klient_00", "3"], {"Klient_003": "Klient_00"}) == ("Klient_00", 1, 0)
    assert streamed(["Klient_003", "1"], {"Klient_003": "Klient_00", "Klient_001": "Müller"}) == ("Klient_0031", 0, 1)


def test_a_number_without_its_zeros_must_be_one_persons() -> None:
    assert restored("Klient_1", {"Klient_001": "Müller", "Klient_0001": "Maier"}) == "Klient_1"


def test_of_json_keys_and_values_are_escaped() -> None:
    document = {"Firma_001": ["Adresse_001", {"pfad": "Kennung_002", "Klient_001": "an\nKlient_002s"}], "n": 1}
    for written in (json.dumps(document), json.dumps(document, indent=1)):
        assert json.loads(restored(written, json=True)) == {
            ORIGINALS["Firma_001"]: [
                ORIGINALS["Adresse_001"],
                {"pfad": ORIGINALS["Kennung_002"], "Müller": "an\nSchmitz’"},
            ],
            "n": 1,
        }
    assert restored('"Klient\\\\_001, Klient_002\\u2019s"', json=True) == '"Müller, Schmitz\\u2019s"'


def test_what_was_said_long_before_tells_a_genitives_language_however_it_is_cut() -> None:
    for words, shown in (("der und die ", "Schmitz’"), ("the and of ", "Schmitz’s")):
        text = f"{words}{'Beleg ' * 28}Klient_002’s"
        assert restored(text).endswith(f" {shown}")
        assert streamed(text) == streamed([text])


NAMES = st.sampled_from(list(ORIGINALS)) | st.builds("{}_{:03}".format, st.sampled_from(STEMS), st.integers(0, 1200))
ANY_ORIGINALS = st.dictionaries(NAMES, st.text(max_size=8) | NAMES, max_size=6)
PIECES = st.one_of(
    st.sampled_from(
        [*ORIGINALS, *STEMS, "KLIENT_001", "Klient\\_001", "Klient\\\\_001", "Klient 001", "Klient_1", "ORT_001"]
    ),
    NAMES,
    st.sampled_from(
        ["s", "'s", "’s", "\\u2019s", "\\u20", "'", "\\", "_", "0", "1", "Kl", "W", " der ", " the ", "\n"]
    ),
    st.text(max_size=3),
)
TEXTS = st.lists(PIECES, max_size=10).map("".join)


def cut(text: str, cuts: Iterable[int]) -> list[str]:
    ends = sorted(min(at, len(text)) for at in cuts)
    return [text[start:end] for start, end in itertools.pairwise([0, *ends, len(text)])]


@given(ANY_ORIGINALS, TEXTS, st.lists(st.integers(0, 80), max_size=12), st.booleans())
def test_the_cuts_make_no_difference(originals: dict[str, str], text: str, cuts: list[int], as_json: bool) -> None:
    assert streamed(cut(text, cuts), originals, json=as_json) == streamed([text], originals, json=as_json)


@given(ANY_ORIGINALS, TEXTS)
def test_nor_does_every_character_by_itself(originals: dict[str, str], text: str) -> None:
    assert streamed(text, originals) == streamed([text], originals)


@given(ANY_ORIGINALS, st.lists(NAMES), st.text(" .,;:|\n()[]*`", min_size=1))
def test_each_placeholder_stands_for_its_own_and_for_nothing_else(
    originals: dict[str, str], names: list[str], between: str
) -> None:
    known = [name for name in names if name in originals]
    expected = between.join(originals.get(name, name) for name in names)
    assert streamed([between.join(names)], originals) == (expected, len(known), len(names) - len(known))


HARD = [
    "Klient_001s Kind, KLIENT_002S, Klient_0011",
    r"Klient\_001 Klient\\_002\u2019s \nKlient_003",
    "Der Klient 001 und Klient_002's, Ort 0012",
    "WKlWoKlient_001KlientKlient_1",
    "[Firma_001]Kennung_002Adresse_001’s",
]


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("text", HARD)
def test_every_split_into_three_gives_the_same(text: str, as_json: bool) -> None:
    whole = streamed([text], json=as_json)
    for cuts in itertools.combinations_with_replacement(range(len(text) + 1), 2):
        assert streamed(cut(text, cuts), json=as_json) == whole, cuts


@pytest.mark.parametrize("text", HARD)
def test_little_waits(text: str) -> None:
    stems = {f"{stem}_1000": "" for stem in STEMS}  # none of the texts' own, so what is fed comes out
    restorer = Restorer(stems)
    waiting = 0
    for character in text.replace("Klient", "Adresse").replace("Firma", "Kennung"):
        waiting += 1 - len(restorer.feed("0", character))
        assert waiting <= (16 if "u2019" not in text else 20)


def test_nothing_waits_where_no_placeholder_begins() -> None:
    restorer = Restorer(ORIGINALS)
    tokens = ["Das", " Schreiben", " geht", " an", " das", " Finanzamt", ".", "\n\n", "Hallo", "the", " Anna", "12",
              "_", "Antwort", "und", "Klientin", "Worte ", "001"]  # fmt: skip
    assert [restorer.feed("0", token) for token in tokens] == tokens


@given(st.sampled_from(["A", "Wo", " Ort", "Klient", "Klient_00"]), st.text(" .,xyz", min_size=1))
def test_what_waits_goes_out_with_what_shows_that_it_is_none(begins: str, goes_on: str) -> None:
    restorer = Restorer(ORIGINALS)
    first = restorer.feed("0", begins)
    assert restorer.feed("0", goes_on + "!") == begins[len(first) :] + goes_on + "!"


def test_endless_digits_do_not_pile_up() -> None:
    restorer = Restorer(ORIGINALS)
    chunks = ["STANDORT_", *["0" * 100] * 10]
    shown = [restorer.feed("0", chunk) for chunk in chunks]
    assert shown[-9:] == chunks[-9:]
    assert "".join(shown) == "".join(chunks)


def test_channels_do_not_mix() -> None:
    restorer = Restorer(ORIGINALS)
    assert restorer.feed("choice 0", "Klient_0") == restorer.feed("choice 1", "Klient_00", json=True) == ""
    assert restorer.feed("choice 0", "02,") == "Schmitz,"
    assert restorer.feed("choice 1", "2 ", json=True) == "Schmitz "
    assert restorer.feed("choice 1", "Firma_001", json=True) == ""
    assert restorer.finish("choice 1") == 'Bau \\"Eck\\" GmbH'
    assert restorer.finish("choice 0") == restorer.finish("never seen") == ""


@given(st.recursive(
    TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=5,
), ANY_ORIGINALS, st.booleans(), st.lists(st.integers(0, 200), max_size=8))  # fmt: skip
def test_json_stays_valid(document: object, originals: dict[str, str], ascii_only: bool, cuts: list[int]) -> None:
    written = json.dumps(document, ensure_ascii=ascii_only)
    json.loads(streamed(cut(written, cuts), originals, json=True)[0])
