"""Mail addresses, telephone numbers, URLs, hosts, handles, paths, files."""

from __future__ import annotations

import pytest

from appliance.privacy.detect.patterns import Patterns
from tests.privacy.detect.marks import wrong

MAIL = [
    "Schreib an [[email:anna.mueller@example.com]], bitte.",
    "Intern: [[email:anna@firma.local]] oder [[email:anna@localhost]].",
    "Adresse: [[email:anna [at] firma.de]].",
    "Adresse: [[email:anna(at)firma.de]].",
    "Adresse: [[email:anna.mueller (at) firma (dot) de]].",
    "write to [[email:anna at firma dot de]] please",
    "<[[email:müller+steuer@straße.example]]>",
    "mailto:[[email:a@b.de]]",
    "[[email:o'neil@example.org]]",
    "folgt mir: [[url:@anna.b]]",
]
PHONES = [
    "Tel. [[phone:089/1234567]]",
    "Rufen Sie [[phone:089 / 12 34 56-0]] an.",
    "Rückruf unter [[phone:(0 41 31) 22 80 71]].",
    "erreichbar unter [[phone:(089) 123456]].",
    "Handy [[phone:0171-1234567]]",
    "Handy: [[phone:01711234567]]",
    "[[phone:0171 123 45 67]] ist meine Nummer",
    "[[phone:+49 89 1234567]]",
    "[[phone:+49 (0)89 123 45 67]]",
    "[[phone:+49 (0) 171 / 123 45 67]]",
    "[[phone:0049-89-1234567]]",
    "[[phone:004917112345678]]",
    "Fax: [[phone:089.1234.567]]",
    "unter [[phone:null eins sieben sechs drei vier fünf null null acht]] erreichbar",
    "Durchwahl [[phone:213]]",
    "Call [[phone:+44 20 7946 0958]] today.",
    "My cell is [[phone:(555) 123-4567]].",
    "Call [[phone:555-123-4567]] or [[phone:1-800-555-0199]].",
    "Phone: [[phone:07700 900123]]",
    "Schweiz [[phone:+41 44 668 18 00]], Wien [[phone:+43 1 58858]]",
]
WEB = [
    "Siehe [[url:https://portal.example.com/akte/4711?name=anna]].",
    "Siehe [[url:www.kanzlei-huber.de]].",
    "auf [[url:kanzlei-huber.de/team/anna]] steht es",
    "Der Server [[url:srv01.intern.lan]] ist weg.",
    "[[url:sftp://files.example.org/in]]",
    r"unter C:\Users\[[url:anna.mueller]]\Desktop",
    "unter /home/[[url:annam]]/briefe",
    r"unter \\[[url:fs01\personal\anna]] liegt es",
    "Datei [[reference:Kontoauszug_47110815.pdf]] anbei",
]
NONE = [
    "Ich komme um 3, wo bist du?",
    "Das war z.B. so, bzw. nicht.",
    "@property\ndef name(self): ...",
    "Öffne main.py und config.json.",
    "import { a } from '@types/node'",
    "Ich war at home.",
    "Bericht_2024.pdf",
    "Wir treffen uns um 14.30 Uhr am 3. Tor.",
    "10/2024 bis 12/2024",
]


@pytest.mark.parametrize("marked", MAIL + PHONES + WEB)
def test_contacts_are_found_as_a_whole_and_nothing_else_is(tier: Patterns, marked: str) -> None:
    """In the spellings of offices."""
    assert wrong(tier, marked) == []


@pytest.mark.parametrize("text", NONE)
def test_ordinary_text_holds_no_contact(tier: Patterns, text: str) -> None:
    """Code, abbreviations, times."""
    assert wrong(tier, text) == []
