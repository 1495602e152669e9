"""No form of an original gets past the scan of the final bytes, and ordinary text does."""

from __future__ import annotations

import base64
import json
import quopri
import unicodedata
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.privacy.forms import Traces, encoded, remains

ORIGINALS = [
    "Anna Müller", "Müller", "Jürgen Groß", "Søren Łukasiewicz", "Weber & Söhne GmbH",
    "anna.mueller@kanzlei.example", "DE89 3704 0044 0532 0130 00", "+49 89 1234567", "03.03.1978", "80331", "Bo",
    "Lindenweg 5a", "4711815", "10.20.30.44",
]  # fmt: skip
TRACES = Traces(ORIGINALS)


def in_base64(text: str, encoding: str = "utf-8", before: str = "", alphabet: bytes = b"+/") -> str:
    return base64.b64encode((before + text + " und mehr").encode(encoding), alphabet).decode()


def spelt_in_cyrillic(text: str) -> str:
    return text.translate(str.maketrans("AeoMpcx", "АеоМрсх"))


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "small": str.lower,
    "capitals": str.upper,
    "swapped case": str.swapcase,
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
    "compatibility letters": lambda text: "".join(
        chr(ord(each) + 0xFEE0) if "!" <= each <= "~" else each for each in text
    ),
    "mathematical letters": lambda text: "".join(
        chr(0x1D5EE + ord(each) - 97) if "a" <= each <= "z" else each for each in text
    ),
    "no umlauts": lambda text: text.translate({**str.maketrans("äöüÄÖÜøØłŁ", "aouAOUoOlL"), ord("ß"): "ss"}),
    "umlauts as two letters": lambda text: text.translate(
        str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "Ü": "Ue", "Ö": "Oe"})
    ),
    "in a URL": quote,
    "in a query": quote_plus,
    "twice in a URL": lambda text: quote(quote(text)),
    "every byte in a URL": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "in a Latin-1 URL": lambda text: quote(text, encoding="latin-1", errors="replace"),
    "base64": in_base64,
    "base64, offset 1": lambda text: in_base64(text, before="x"),
    "base64, offset 2": lambda text: in_base64(text, before="xy"),
    "base64, after something else": lambda text: "Zz1" + in_base64(text),
    "base64 for URLs": lambda text: in_base64(text, before="~~?", alphabet=b"-_"),
    "base64 without padding": lambda text: in_base64(text).rstrip("="),
    "base64 in lines": lambda text: base64.encodebytes(("Sehr geehrte Damen, " * 4 + text).encode()).decode(),
    "base64 twice": lambda text: in_base64(in_base64(text)),
    "base64 of UTF-16": lambda text: in_base64(text, "utf-16-le"),
    "base64 of UTF-16, big end": lambda text: in_base64(text, "utf-16"),
    "base64 of small letters": lambda text: in_base64(text.lower()),
    "base64 of JSON": lambda text: in_base64(json.dumps({"name": text})),
    "hexadecimal": lambda text: f"{text} AG".encode().hex(),
    "hexadecimal capitals": lambda text: f"{text} AG".encode().hex().upper(),
    "hexadecimal with spaces": lambda text: f"{text} AG".encode().hex(" "),
    "hexadecimal of UTF-16": lambda text: text.encode("utf-16").hex(),
    "escapes of bytes": lambda text: "".join(f"\\x{byte:02x}" for byte in text.encode()),
    "HTML entities": lambda text: "".join(f"&#{ord(each)};" for each in text),
    "hexadecimal entities": lambda text: "".join(f"&#x{ord(each):x};" for each in text),
    "entities twice": lambda text: "".join(f"&amp;#{ord(each)};" for each in text),
    "JSON in text": lambda text: json.dumps({"name": text}),
    "JSON in JSON in text": lambda text: json.dumps(json.dumps({"name": text})),
    "escapes of JSON": lambda text: "".join(f"\\u{ord(each):04x}" for each in text),
    "quoted-printable": lambda text: quopri.encodestring(text.encode()).decode(),
    "quoted-printable, Latin-1": lambda text: quopri.encodestring(text.encode("latin-1", "replace")).decode(),
    "spaces between": " ".join,
    "dots between": ".".join,
    "hyphens between": "-".join,
    "two spaces between": "  ".join,
    "markup between": lambda text: f"{text[:2]}**{text[2:]}**",
    "HTML markup between": lambda text: f"{text[:2]}<b>{text[2:]}</b>",
    "a joiner between": "\u200d".join,
    "no width between": "\u200b".join,
    "soft hyphens between": "\u00ad".join,
    "a mark on each": "\u0301".join,
    "directions around": lambda text: f"\u202e{text}\u202c",
    "another script's letters": spelt_in_cyrillic,
    "a line break for each space": lambda text: text.replace(" ", "\n"),
    "hyphenated at the end of a line": lambda text: f"{text[:-2]}-\n{text[-2:]}",
    "a no-break space": lambda text: text.replace(" ", "\u00a0"),
    "no spaces": lambda text: text.replace(" ", ""),
    "underscores": lambda text: text.replace(" ", "_"),
    "an identifier": lambda text: f"get_{text.replace(' ', '_')}_2",
    "a genitive": lambda text: f"{text}s",
    "quoted": lambda text: f"»{text}«",
    "a file name": lambda text: f"C:\\Akten\\{text}.pdf",
}  # fmt: skip
NOT_IN = {  # what isn't in a form at all; and three letters are too few to be told from decoded noise
    *(("Bo", form) for form in FORMS if form.startswith(("base64", "hexadecimal"))),
    ("Søren Łukasiewicz", "in a Latin-1 URL"), ("Søren Łukasiewicz", "quoted-printable, Latin-1"),
    ("Bo", "markup between"), ("Bo", "HTML markup between"), ("Bo", "hyphenated at the end of a line"),
}  # fmt: skip


CASES = [(original, form) for original in ORIGINALS for form in FORMS if (original, form) not in NOT_IN]


@pytest.mark.parametrize(("original", "form"), CASES)
def test_an_original_is_found(original: str, form: str) -> None:
    body = json.dumps({"messages": [{"content": f"Siehe {FORMS[form](original)} usw."}]})
    assert TRACES.remain(body.encode())


def test_numbers_count_as_they_are_written_anywhere() -> None:
    for written in ("DE89370400440532013000", "DE89-3704-0044-0532-0130-00", "089/1234567", "0049 (89) 12 34 567"):
        assert remains(written.encode(), [*ORIGINALS, "0891234567"]), written
    assert remains(b'{"konto": 4711815}', ORIGINALS)


@pytest.mark.parametrize(
    "text",
    [
        "Der Müllerbursche kann nach dem Boten fragen, dann am Montag kommt die Anlage zu § 80 EStG.",
        "Die Miete beträgt 1.250,00 € im Monat, fällig am 3. März 2024; Zinsen 3,5 %.",
        "def send(max_tokens: int = 4096) -> str: return f'{max_tokens:05d}'",
        "Please send the boat invoice, number 803312, by 3 March 1979. The group's net profit was 4,711,816.",
        "Klient_001 und Firma_002s Ort_003 haben Kennung_004 und 1978, 30-39 Jahre, 80xxx.",
        "Sha-1: da39a3ee5e6b4b0d3255bfef95601890afd80709, siehe https://example.org/a?b=c%20d&e=f",
    ],
)
def test_ordinary_text_holds_none(text: str) -> None:
    assert remains(json.dumps({"messages": [{"role": "user", "content": text}]}).encode(), ORIGINALS) is None


def test_an_ordinary_word_is_a_name_only_where_it_is_written_as_one() -> None:
    assert remains(b"Das dauert zu lange. Lange Wege.", ["Lange"]) is None
    assert remains(b"Das sagt Herr Lange auch.", ["Lange"])
    assert remains(b"peter lange", ["Lange", "Peter Lange"])


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_can_be_scanned(body: bytes) -> None:
    assert remains(body, ORIGINALS) in {None, "plain", "split", "escaped", "base64", "hex", "run together"}


@settings(deadline=None)
@given(st.text(max_size=60), st.sampled_from(["Anna Müller", "DE89 3704 0044 0532 0130 00"]), st.text(max_size=60))
def test_it_is_found_between_anything(before: str, original: str, after: str) -> None:
    assert remains(f"{before} {original} {after}".encode("utf-8", "replace"), ORIGINALS)


@pytest.mark.parametrize(
    "text",
    [
        "Anbei: U2VociBnZWVocnRlIERhbWVuIHVuZCBIZXJyZW4=",
        "data:image/png;base64,iVBORw0KGgo=",
        "53656872206765656872746520446165",
        "Stra%C3%9Fe",
        'Teil: {"name": "M\\u00fcl',
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk",
    ],
)
def test_what_is_encoded_is_no_text(text: str) -> None:
    assert encoded(text)


@pytest.mark.parametrize(
    "text",
    [
        "Die Einkommensteuererklärung, das Grundstücksverkehrsgenehmigungszuständigkeitsübertragungsgesetz.",
        "Straße & Platz, 100 % sicher, a&b, x=20, C:\\neu\\temp, R&D; AT&T &amp; Co., 50%ige Ermäßigung",
        "https://example.org/wiki/Umsatzsteuer_2024?id=12345&lang=de",
        "def test_the_internationalization_of_configuration_files(self): return ConfigurationFactoryBuilder()",
        "/usr/lib/python3/dist-packages/cryptography/hazmat/primitives/asymmetric/ed25519.py",
        "Klient_001 schuldet Kennung_002 und hat die Rechnung RE-2024-000815 vom 3.3.2024.",
        "sha1 da39a3ee5e6b4b0d3255bfef95601890afd80709, 550e8400-e29b-41d4-a716-446655440000",
        "Kontonummer 37040044 0532013000, Zahlen 31 32 33 34 35 36 37 38",
        "print(\"Hallo\\nWelt\\t!\") und 'C:\\\\Users'",
    ],
)
def test_what_is_not_encoded_is_text(text: str) -> None:
    assert not encoded(text)
