"""Streets, postal boxes and postcodes."""

from __future__ import annotations

import pytest

from appliance.privacy.detect.patterns import Patterns
from tests.privacy.detect.marks import wrong

FOUND = [
    "Frau Koch, [[address:Lindenstraße 12a]], [[postcode:80331]] [[place:München]]",
    "Sie wohnt in der [[address:Lindenstr. 12]].",
    "in der [[address:Königsallee 5]]",
    "[[address:Karl-Marx-Straße 5]], [[postcode:12043]] [[place:Berlin]]",
    "[[address:Berliner Straße 12 b]]",
    "[[address:Straße des 17. Juni 135]]",
    "Firma X, [[address:Am Alten Markt 3]], [[postcode:06108]] [[place:Halle]]",
    "Lieferung: [[address:Am Alten Markt 3]]\n",
    "Treffen wir uns [[address:Unter den Linden 77]]?",
    "Herr Weiß, [[address:An der Feldmark 3]], [[postcode:31134]] [[place:Hildesheim]]",
    "Siegrun\n[[address:Kattrepel 6]]\n[[postcode:20095]] [[place:Hamburg]]",
    "ich wohne jetzt [[address:lange reihe 12]]",
    "wohnt in der [[address:lindenstr. 4]]",
    "Adresse [[address:Storgata 14]], Tromsø",
    "niemand da ([[address:Sonnenhang 5]], Ilmenau).",
    "[[address:Postfach 12 34]]",
    "[[address:P.O. Box 1234]]",
    "Ich wohne in der [[address:Goethestraße]].",
    "c/o [[person:Anna Schmidt]]",
    "z. Hd. Frau [[person:Schmidt]]",
    "PLZ [[postcode:80331]]",
    "D-[[postcode:80331]] [[place:München]]",
    "A-[[postcode:1010]] [[place:Wien]], CH-[[postcode:8001]] [[place:Zürich]]",
    "[[postcode:65428]] [[place:Frankfurt am Main]] oder",
    "wohnhaft in [[postcode:01067]] [[place:Dresden]]",
    "PLZ,Ort\n[[postcode:26721]],[[place:Emden]]\n[[postcode:26603]],[[place:Aurich]]",
    "[[address:221B Baker Street]]",
    "at [[address:350 Fifth Avenue]], New York",
    "on [[address:5th Avenue]]",
    "Flat 3, x [[address:18 Marsh Lane]], Hastings [[postcode:TN34 1QX]]",
    "live at [[address:8 schiller st]]",
    "Briefkopf\n[[address:Hinter den Gärten 13a]], [[postcode:09113]] [[place:Chemnitz]]",
    "Die Wohnung in der [[address:Hinter den Gärten 13]] wird geräumt.",
    "wohnhaft [[address:Lehmkuhle 54]] in Ulm",
    "Name;Anschrift;Ort\nx;[[address:Auf dem Sande 52]];y\nx;[[address:Am Weiher 4]];y",
    "x,[[address:Nordring 15]],2024 ok",
    '{"strasse": "[[address:Zum Neuen Krug 16]]"}',
    "[[address:Alte Landstraße 75]]",
    "im [[address:Mittelweg 56a]]",
    "wohnt [[address:Pastor Bruns Straße siebenundzwanzig]] in Ulm",
    "[[address:Lindenweg hundertzwölf]]",
    "x;[[address:15 High Street]];y",
    '"street": "[[address:79 The Orchard]]", "x"',
    "the deed of [[address:22 Riverside]] last week",
    "[[postcode:97447]]",
    "London [[postcode:SW1A 1AA]]",
    "Beverly Hills, CA [[postcode:90210]]",
    '{"zip": "[[postcode:04101]]"}',
]
NONE = [
    "Wir haben 12500 Mitarbeiter und 80000 Kunden.",
    "Der Arbeitsplatz 3 ist frei.",
    "Am Montag, 8 Uhr, im Kapitel 3.",
    "Im Jahr 2024 um 3 Prozent.",
    "Im Schnitt 30 Anfragen pro Tag.",
    "Das ist der richtige Weg 2 Wochen vor Schluss.",
    "Die Hauptverkehrsstraße, eine Sackgasse und die Produktionsstraße.",
    "12345 Zeichen und 23456 Token.",
    "Rechne 12345 mal 3.",
    "The meeting is in room 12 at 3 pm.",
    "See section 4 and page 12.",
    "0,5 l Wasser, 250 g Mehl, 3 Eier",
    "Beim Rechtsweg 1 Instanz.",
    "Auf Platz 3 liegt das Team.",
    "Die Straße neu asphaltieren, den Weg eingrenzen, auf dem Platz einladen.",
    "Sie nannte Im Vergleich 3 Gründe; siehe Am Montag 8 Uhr.",
    "Er hat ein Haus in der Preisklasse 2.",
    "a subway, 3 Gateway licences, 5 Subway lines",
    "das Special Jahresrückblick 2005, das lief, und 50 Moscheen, Karawansereien.",
]


@pytest.mark.parametrize("marked", FOUND)
def test_addresses_are_found_as_a_whole_and_nothing_else_is(tier: Patterns, marked: str) -> None:
    """With and without numbers, in letters, lists and chats."""
    assert wrong(tier, marked) == []


@pytest.mark.parametrize("text", NONE)
def test_ordinary_text_holds_no_address(tier: Patterns, text: str) -> None:
    """Numbers of things, and words that end like streets."""
    assert wrong(tier, text) == []
