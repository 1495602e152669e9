"""Passwords, keys and tokens."""

from __future__ import annotations

import pytest

from appliance.privacy.detect.patterns import Patterns
from appliance.privacy.kinds import Kind
from tests.privacy.detect.marks import wrong

TOLD = [
    "Das Passwort war [[secret:Sommer2024!]]",
    "pw: [[secret:hallo123]]",
    "Das Kennwort lautet [[secret:geHeim#1]].",
    "my password is [[secret:hunter2]]",
    'Passwort: "[[secret:Katze]]"',
    "Passwort: [[secret:hund]]",
    "Passwort von Gisbert zurückgesetzt, neues lautet [[secret:Herbst!2024laub]].",
    "Die PIN ist [[secret:4711]].",
    "TAN: [[secret:123456]]",
    "Bestätigungscode [[secret:482913]]",
    "DB_PASSWORD=[[secret:xK9vbQ2w]]",
    "Server=db;Database=x;Pwd=[[secret:s3cr3t]];",
    "Authorization: Bearer [[secret:abcdef0123456789abcdef]]",
]
KEYS = [
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_" + "x7Kd92LmQ0aVtR4ZcY81nPbWsE55uHfGjT3o",
    "glpat-" + "ABCDEF0123456789abcd",
    "sk-" + "proj-abcdEFGH0123456789ijklMNOP",
    "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
    "xoxb-" + "123456789012-abcdefABCDEF",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVPmB92K27uhbUJU1p1r",
    "npm_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
    "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY12",
]
NONE = [
    "Ich habe mein Passwort vergessen, wie setze ich das Passwort zurück?",
    "Das Passwort ist abgelaufen.",
    "Passwort ändern: so geht es.",
    "Das Passwort muss mindestens 12 Zeichen haben.",
    "Passwort: siehe unten",
    "The password is required.",
    "The password was changed yesterday.",
    "Die PIN steht im Brief.",
    "Der Quellcode hat 1200 Zeilen.",
    "Status Code 404",
    "password=os.environ['X']",
    "password = ${SECRET}",
    "Donaudampfschifffahrtsgesellschaftskapitänsmütze",
    "Sozialversicherungsnachweisverfahren-Einführungsgesetz",
    "Tante Inge und der Sultan 1234 Mal",
]


@pytest.mark.parametrize("marked", TOLD)
def test_what_somebody_calls_a_secret_is_one(tier: Patterns, marked: str) -> None:
    """The value, without the words around it."""
    assert wrong(tier, marked) == []


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("around", ["Hier: {} .", "export A={}", '{{"x": "{}"}}', "{}"])
def test_keys_are_known_by_their_form(tier: Patterns, key: str, around: str) -> None:
    """Whatever stands around them."""
    text = around.format(key)
    found = {at for span in tier.find(text) if span.kind is Kind.SECRET for at in range(span.start, span.end)}
    assert set(range(text.index(key), text.index(key) + len(key))) <= found


def test_a_private_key_is_one_find_from_its_first_line_to_its_last(tier: Patterns) -> None:
    """Whatever is between them."""
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n+abc==\n-----END RSA PRIVATE KEY-----"
    spans = [span for span in tier.find(f"a\n{key}\nb") if span.kind is Kind.SECRET]
    assert (min(span.start for span in spans), max(span.end for span in spans)) == (2, 2 + len(key))


def test_a_url_with_a_password_is_a_secret_as_a_whole(tier: Patterns) -> None:
    """So that nothing longer makes less of it."""
    text = "postgres://lmayer:Gl8tteis@db.intern:5432/kanzlei"
    assert text in [text[span.start : span.end] for span in tier.find(text) if span.kind is Kind.SECRET]


@pytest.mark.parametrize("text", NONE)
def test_to_speak_of_passwords_gives_none_away(tier: Patterns, text: str) -> None:
    """Nor does a long word, nor a place holder in code."""
    assert wrong(tier, text) == []
