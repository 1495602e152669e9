"""Streets, postal boxes and postcodes, German and English."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from appliance.privacy.detect.rule import Parts, Rule, Set, Window, all_of, around, has, word_before, words
from appliance.privacy.kinds import Kind, Span

_NUMBER = (
    r"(?!(?:19|20)\d\d(?!\d))\d{1,4} ?[a-zA-Z]?(?!\w)(?: ?[-/+] ?\d{1,4} ?[a-zA-Z]?(?![\w.,]\d|\w))?"
    r"(?! ?(?:Uhr|%|€|EUR|Euro|Prozent|Jahre|[Mm]al|Stück|Tage|km|m²)|[.:]\d|,\d{1,2}(?![\w./-]))"
)
STREET_ENDS = tuple(
    words(
        "straße strasse str weg allee platz gasse gässchen ring damm ufer chaussee steig stein stieg pfad markt "
        "hof graben wall promenade kamp twiete redder stiege winkel kai brücke park garten gärten feld höhe grund "
        "anger wiese blick leite acker siedlung terrasse teich mühle "
    )
)
_ENDS = rf"(?:{'|'.join(STREET_ENDS)}|str\.)"
_STREETS = r"(?:Straße|Strasse|Str\.?|Weg|Allee|Platz|Gasse|Ring|Damm|Ufer|Chaussee|Markt|Steig|Pfad|Wall|Graben)"
_NO_STREET = re.compile(
    r"(?i)(?:arbeits|stell|park|sport|spiel|steh|sitz|speicher|steck|lager|schlaf|studien|ausbildungs|tabellen|um|aus|"
    r"hin|rück|rechts|dienst|zahlungs|beschwerde|instanzen|verwaltungs|produktions|fertigungs|einbahn|wasser|"
    r"bundes|kreis|schnell|auto|miet|end|jahr|gesamt|datums|text|eingabe|tätigkeits|aufgaben|themen|um|handlungs|"
    r"frei|such|dialog|super|bau|kapital|finanz|aktien|absatz|grund|hinter|vorder|unter|platz|ein|an|zu|vertrag|betrag|"
    r"aufbau|mannschafts|start|bahn|friedrichs?hof|stand|spiel|ersten?|welt|schwer|kilo|h|spr)(?:straße|strasse|str\.?|"
    r"weg|platz|ring|park|markt|hof|feld|grund|bogen|bach|berg|eck)\Z"
)
_ADJECTIVE = (
    r"(?:Alt|Neu|Groß|Klein|Hoh|Ober|Unter|Mittler|Lang|Kurz|Breit|Schmal|Krumm|Tief|Grün|Weiß|Schwarz|Rot|Erst|Zweit|"
    r"Dritt|Inner|Äußer|Hinter|Vorder|Nördlich|Südlich|Östlich|Westlich|Link|Recht|Heilig|Kalt|Warm|Sankt)e[rnms]?"
)
FUNCTION_WORDS = (
    r"(?:(?:An|Auf|In|Unter|Über|Hinter|Vor|Bei|Zu|Ob|Neben|Zwischen|Gegen|Aus|Op|Achter|Up) (?:de[rnm]|das|die)|Am|"
    r"Im|Zum|Zur|"
    rf"Unterm|Überm|Hinterm|Vorm|Beim|Aufm|{_ADJECTIVE})"
)
NO_PLACE = (
    r"(?!(?:Montag|Dienstag|Mittwoch|Donnerstag|Freitag|Samstag|Sonnabend|Sonntag|Jan|Feb|Mär|Apr|Mai|Jun|Jul|Aug|Sep|"
    r"Okt|Nov|Dez|Jahr|Quartal|Monat|Ende|Anfang|Kapitel|Abschnitt|Teil|Schnitt|Seite|Punkt|Version|Alter|Raum|Zeile|"
    r"Schritt|Fall|Fälle|Bereich|Block|Feld|Spalte|Tabelle|Folie|Absatz|Artikel|Zeitraum|Umfang|Durchschnitt|Wert|Tag|"
    r"Termin|Stand|Preis|Betrag|Saldo|Konto|Kalenderwoche|KW|Woche|Stock|Haus|Gebäude|Etage|Zimmer|Anhang|Anlage|"
    r"Beispiel|Satz|Nummer|Kunden|Mitarbeiter|Dateien|Version|Serie|Klasse|Gruppe|Stufe|Phase|Vorjahr|Geschäftsjahr|"
    r"Formel|Vergleich|Juni|Juli)(?:e?n|s|er)?(?![\wäöüß])|(?:Jan|Feb|Apr|Aug|Sept?|Okt|Nov|Dez)\w*)"
)
_NO_NAME_BEFORE = r"(?:Auf|De[rnm]|Die|Das|Eine?|Einen|Diese[rns]|Kein|Mein|Ihr|Unser|Von|Bis|Und|Welcher) "
_WORD = r"[A-ZÄÖÜ][\wäöüß.'-]*"


def _in_the_middle(match: re.Match[str]) -> bool:
    text, start, end = match.string, match.start(), match.end()
    before, after = text[max(start - 40, 0) : start], text[end : end + 12]
    alone = before[-1:] in _CELL and after[:1] in _CELL
    return (
        alone
        or re.match(r",?\s+\d{5}", after) is not None
        or match[0][-1].isalpha()
        or re.search(r"[a-zäöüß,)] ?\Z", before) is not None
    )


_CELL = ("", *'\n\t,;|"')  # beside what fills a line or a cell
_WHICH = words("dieser diese einer eine jede jeder welche welcher gleichen selben unserer unsere meiner ihrer")
_NAMED = [
    Rule("street", Kind.ADDRESS, 0.95, re.compile(
        rf"(?<![\w-])(?P<find>(?:{_ADJECTIVE} )?(?P<name>[A-ZÄÖÜ][\wäöüß.-]*?{_ENDS})(?:,? (?:Nr\.? ?)?|\.){_NUMBER})"),
        lambda m: not _NO_STREET.match(m["name"])),
    Rule("street", Kind.ADDRESS, 0.9, re.compile(
        rf"(?<![\w-])(?!{_NO_NAME_BEFORE})(?P<find>(?:{_WORD}[ -]){{1,3}}{_STREETS} (?:Nr\.? ?)?{_NUMBER})")),
    Rule("street", Kind.ADDRESS, 0.9, re.compile(
        r"(?<!\w)(?P<find>(?:Straße|Str\.|Platz|Allee) (?:des|der) (?:\d{1,2}\. )?[A-ZÄÖÜ]\w+(?: [A-ZÄÖÜ]\w+)?"
        rf"(?: {_NUMBER})?)")),
    Rule("street", Kind.ADDRESS, 0.8, re.compile(
        rf"(?i)(?<![\w-])(?P<find>(?P<name>[\wäöüß-]{{3,40}}?(?:straße|strasse|str\.?|weg|allee|platz|"
        rf"gasse)) {_NUMBER})"),
        lambda m: not _NO_STREET.match(m["name"])),
    Rule("street", Kind.ADDRESS, 0.8, re.compile(
        rf"(?i)(?<![\w-])(?P<find>(?P<name>[a-zäöüß-]{{4,30}})[ -](?:straße|strasse|str\.?) {_NUMBER})"),
        lambda m: m["name"].lower() not in _WHICH),
]  # fmt: skip
_PERHAPS = Rule("street", Kind.ADDRESS, 0.8, re.compile(  # as towns and other things end, too: Sonnenhang 5, Ilmenau
    r"(?<![\w-])(?P<find>(?!Anhang|Zusammenhang|Umfang|Frage|Antrags|Melde|Sektor|Faktor|Motor|Autor|Direktor|Zweck|"
    r"Check|"
    r"Scheck|Stau|Umbau|Ausbau|Anbau|Neubau|Aufbau|Ein|Ab|Um|Aus|Auf|Durch|Unter|Zu)[A-ZÄÖÜ][\wäöüß-]{2,30}(?:hang|"
    r"berg|"
    r"bach|au|wald|horst|heide|busch|rain|bruch|eck|tor|bogen|zeile|lohe|born|kuhle|acker|wiese|see|tal|brunnen|hausen|"
    r"hof|hain|kamp|moor|koppel|heck|hecke|winkel|blick|eiche|linde|brink) \d{1,3}(?: ?[a-zA-Z](?!\w))?)"
    r"(?=[\t;|\"]|,(?=\d\d?\.|\d{4}-)|"
    r", [A-ZÄÖÜ][a-zäöü]+[).,;\n]|,? \d{5} |, [A-ZÄÖÜ][a-zäöü]+\Z)"))  # fmt: skip
_AT_PLACE = Rule("street", Kind.ADDRESS, 0.85, re.compile(  # Am Alten Markt 3
        rf"(?<![\w-])(?P<find>(?P<at>{FUNCTION_WORDS}) {NO_PLACE}{_WORD}(?: {_WORD}){{0,2}} "
        r"\d{1,3}(?: ?[a-zA-Z](?!\w))?)(?![\w%]|[.:/-]\d|(?<=\d),\d{1,2}(?![\w./-])|\. [A-ZJ]| ?(?:%|€|Uhr|EUR|Prozent|"
        r"[a-zäöü]{3,}))"),
        _in_the_middle)  # fmt: skip
_BEFORE_CODE = Rule("street", Kind.ADDRESS, 0.9, re.compile(  # whatever stands with a number before a postcode
        rf"(?<![\w-])(?P<find>(?:{FUNCTION_WORDS} )?{_WORD}(?:[ -]{_WORD}){{0,3}} \d{{1,4}} ?[a-z]?)(?=(?: ?[,|;]|"
        rf"\s*\n)\s*(?:[A-Z]{{1,2}}-)?\d{{5}} ?[,|;]? ?[A-ZÄÖÜ])"))  # fmt: skip
_NAMED_AT = Rule(
    "street",
    Kind.ADDRESS,
    0.8,
    re.compile(  # in der Hinter den Höfen 26 wird
        r"(?<=[a-zäöüß,] )(?P<find>(?:(?:An|Auf|In|Unter|Über|Hinter|Vor|Bei|Zu|Ob) (?:de[rnm]|das|die)|Am|Im|Zum|"
        r"Zur|Unterm|Beim) "
        rf"{NO_PLACE}{_WORD}(?: {_WORD}){{0,2}} \d{{1,3}}(?: ?[a-zA-Z](?!\w))?)(?![\w%]|[.:/-]\d| ?(?:%|€|Uhr|EUR|"
        rf"Euro|Prozent))"
    ),
)
_LIVES = Rule("street", Kind.ADDRESS, 0.8, re.compile(
    r"(?i)(?<!\w)(?:Anschrift|Adresse|wohnt|wohnst|wohne|wohnen|wohnhaft|Wohnsitz|gezogen|zieht|umgezogen|address|"
    r"lives?|Wohnung|Haus|Filiale|Praxis|Büro|Grundstück|Laden)(?!\w)"
    r"[^\d\n.;]{0,30}?(?:(?<=[:,]) ?| (?:ist|lautet|jetzt|nun|in|nach|at|is) (?:der |den |dem |die |das )?|"
    r"(?<=haft) |(?<=chrift) |(?<=dresse) |(?<=ddress) )"
    rf"(?P<find>(?-i:{NO_PLACE})(?!(?:\w+ ){{0,3}}\w*(?:klasse|stufe|gruppe|"
    rf"größe) )[\w.'-]{{3,30}}(?: [\w.'-]{{2,30}}){{0,3}} \d{{1,3}}(?: ?[a-z]"
    r"(?!\w))?)(?![\w%]|[.,]\d| ?(?:€|Euro|Jahre|Uhr|Prozent|EUR))"))  # fmt: skip
_LIVES_PARTS = Parts(
    "nschrift",
    "dresse",
    "wohn",
    "Wohn",
    "zogen",
    "zieht",
    "address",
    "lives",
    "live at",
    "Haus",
    "Filiale",
    "Praxis",
    "Büro",
    "Grundst",
    "Laden",
)
_ENGLISH_ENDS = words(
    "Alley Ave Avenue Bank Blvd Boulevard Branch Bridge Broadway Brook Brooks Bypass Camp Canyon Cape Causeway Center "
    "Centers Circle Circles Cliff Cliffs Close Club Common Corner Corners Cottages Course Court Courts Cove Coves "
    "Creek Crescent Crest Croft Crossing Crossroad Ct Curve Dale Dam Divide Dr Drive Drives Embankment End Esplanade "
    "Estate Estates Expressway Extension Extensions Fall Falls Ferry Field Fields Flats Ford Fords Forest Forge "
    "Forges Fork Forks Fort Freeway Garden Gardens Gate Gateway Glen Glens Green Greens Grove Groves Harbor Harbors "
    "Harbour Haven Heights Highway Hill Hills Hollow Inlet Island Islands Isle Junction Junctions Keys Knoll Knolls "
    "Lake Lakes Landing Lane Lights Ln Loaf Lock Locks Lodge Loop Mall Manor Manors Market Meadow Meadows Mews Mill "
    "Mills Mission Motorway Mount Mountain Mountains Neck Orchard Oval Overpass Parade Park Parks Parkway Parkways "
    "Pass Passage Path Pike Pine Pines Pl Place Plain Plains Plaza Point Points Port Ports Prairie Quay Quayside "
    "Radial Ramp Ranch Rapid Rapids Rd Rest Ridge Ridges Rise River Road Roads Route Row Rue Run Shoal Shoals Shore "
    "Shores Skyway Spring Springs Spur Spurs Sq Square Squares St Station Stravenue Stream Street Streets Summit "
    "Terrace Throughway Trace Track Trafficway Trail Tunnel Turnpike Underpass Unions Vale Valley Valleys Viaduct "
    "View Views Village Villages Vista Walk Walks Wall Way Ways Well Wells Wharf Yard "
)
_ENGLISH_TAILS = ("way", "gate", "side", "croft", "hurst", "mead", "field", "dene")
_WORDS = re.compile(r"[A-Za-z]+")
_ANY_END = _ENGLISH_ENDS | words("street st road rd ave avenue lane drive")
_ENGLISH = [
    Rule("street", Kind.ADDRESS, 0.9, re.compile(
        r"(?<![\w-])(?P<find>(?:(?:Flat|Studio|Apt\.?|Apartment|Suite|Unit) \w{1,5}[,\n] ?(?:\d{1,5}[A-Za-z]? )?|"
        r"\d{1,5}[A-Za-z]?,? )(?:(?:North|South|East|West|[NSEW]\.?) )?"
        r"(?:(?:\d{1,3}(?:st|nd|rd|th)|[A-Z][\w'.-]+) ){1,3}?"
        rf"(?:{'|'.join(sorted(_ENGLISH_ENDS))})(?!\w)\.?(?:,? (?:Apt\.?|Suite|Unit|Flat|No\.?) \w{{1,5}})?)")),
    Rule("street", Kind.ADDRESS, 0.85, re.compile(r"(?<!\w)(?P<find>(?:Flat|Apt\.?|Apartment|Suite|"
                                                  r"Unit) \d{1,4}[A-Za-z]?, [A-Z]\w+(?: [A-Z]\w+){0,2})(?=,|\n|\Z)")),
    Rule("street", Kind.ADDRESS, 0.7, re.compile(  # a line above a British or American postcode, or between commas
        r"(?:(?<=\n)(?P<line>)|(?<=[a-z], )|(?<=: ))(?P<find>\d{1,4}[A-Za-z]? [A-Z][a-z'.-]+(?: [A-Z][a-z'.-]+){1,2})"
        r"(?(line)(?=\n(?:[^\n]{2,40}\n)?[^\n]{0,30}[A-Z]{1,2}\d)|(?=, [A-Z][a-z]+(?:[,.]|$)))")),
    Rule("street", Kind.ADDRESS, 0.7, re.compile(r"(?i)(?<![\w.,])(?P<find>\d{1,4}[a-z]? [a-z][a-z'-]{2,20} (?:st|"
                                                 r"street|rd|road|ave|avenue|lane|drive))(?!\w)")),
    Rule("street", Kind.ADDRESS, 0.8, re.compile(
        r"(?<!\w)(?P<find>\d{1,3}(?:st|nd|rd|th) (?:Street|Avenue|Road|Ave\.?|St\.?)(?!\w))")),
]  # fmt: skip
_ENGLISH.append(
    Rule(
        "street",
        Kind.ADDRESS,
        0.7,
        re.compile(  # 22 Quayside
            r"(?<![\w./-])(?P<find>\d{1,3}[A-Za-z]? (?:The [A-Z][a-z]+|(?!Gateway|Subway|Rail|Run|High|Half|"
            r"Free|Motor|Norway|In|Out|Up|Down|Al|Any)"
            r"[A-Z][a-z]{2,12}(?:way|gate|side|croft|hurst|mead|field|dene)))(?!\w|-| [A-Z])"
        ),
    )
)
_BOX = Rule("box", Kind.ADDRESS, 0.95, re.compile(
        r"(?i)(?<!\w)(?P<find>(?:Postfach|PF|P\. ?O\. ?Box|PO Box) ?:? ?\d{1,3}(?: ?\d{1,3}){0,3})(?!\w)"))  # fmt: skip
_NO_NAME = frozenset(
    ["Straße", "Strasse", "Allee", "Gasse", "Chaussee", "Hauptverkehrsstraße", "Sackgasse", "Einkaufsstraße"]
)
_BARE = Rule("street", Kind.ADDRESS, 0.7, re.compile(
        r"(?<![\w-])(?P<find>(?P<name>[A-ZÄÖÜ][\wäöüß-]*(?:straße|strasse|allee|gasse|chaussee|-Straße|-Strasse|-Str\.|"
        r"-Weg|-Allee|-Platz|-Ring|-Ufer|-Damm|str\.))|[A-ZÄÖÜ][a-zäöüß]+er (?:Straße|Strasse|Str\.|Allee|Chaussee|"
        r"Damm|"
        r"Ufer))(?!\w)"),
        lambda m: m["name"] is None or not (_NO_STREET.match(m["name"]) or m["name"] in _NO_NAME))  # fmt: skip
_BARE_ENGLISH = Rule("street", Kind.ADDRESS, 0.7, re.compile(
        r"(?<!\w)(?P<find>[A-Z][a-z']+(?: [A-Z][a-z']+)? (?:Street|Road|Avenue|Lane|Boulevard))(?!\w)"))  # fmt: skip
_CARE = Rule("care", Kind.PERSON, 0.8, re.compile(
        r"(?i)(?<!\w)(?:c/o|z\. ?Hd\.?|z\. ?H\.|attn\.?:?|att\.:?)(?: (?:von|Herrn?|Frau|Fam(?:ilie|\.)|Mr\.?|Mrs\.?|"
        r"Ms\.?|Dr\.))*"
        r" (?P<find>(?-i:[A-ZÄÖÜ])[\w.'-]+(?: (?-i:[A-ZÄÖÜ])[\w'-]+){0,2})"))  # fmt: skip
_LIKE_STREET = (*STREET_ENDS, "str.", "nr.", "juni", "mai")
_CODE_AHEAD = re.compile(r" ?[a-z]?(?: ?[,|;]|\s*\n)\s*(?:[A-Z]{1,2}-)?\d{5} ?[,|;]? ?[A-ZÄÖÜ]")
_STREET_PARTS = Parts(
    "straße", "strasse", "Straße", "Strasse", "str.", "Str.", "llee", "gasse", "haussee", "-Weg", "-Platz", "-Ring",
    "Damm", "Ufer",
)  # fmt: skip
_ENGLISH_PARTS = Parts("Street", "Road", "Avenue", "Lane", "Boulevard")
_CARE_PARTS = Parts(
    "c/o", "C/O", "z.Hd", "z. Hd", "z. H", "z.H", "Z.Hd", "Z. Hd", "Attn", "attn", "ATTN", "Att.", "att.", "Att:",
    "att:",
)  # fmt: skip
_PLACE_PARTS = (
    "Am ", "An ", "Auf ", "Im ", "In ", "Zum ", "Zur ", "Unter", "Hinter", "Vor", "Bei", "Über", "m ", "Zu ", "Ob ",
    "Neben ", "Zwischen ", "Gegen ", "Aus ", "Op ", "Up ", "Achter ", "e ", "er ", "es ", "en ", "em ",
)  # fmt: skip
_ENGLISH_START = re.compile(
    r"(?:[A-Za-z]|st|nd|rd|th)?(?:,? |\n)(?:[A-Z0-9]|\w+ (?:st|street|rd|road|ave|avenue|lane|drive)(?!\w))"
)
_BOX_PARTS = Parts("ostfach", "OSTFACH", "PF", "Box", "BOX", "box")

_COUNTED = (
    r"(?!(?:Euro|Mal(?!\w)|Mark(?!\w)|Franken|Dollar|Pfund|Cent|Stück|Stk|Mitarbeite|Kunde|Einwohner|Exemplar|Mensch|"
    r"Person|"
    r"Teilnehme|Datens|Datei|Zeichen|Wort|Wörter|Zeile|Token|Seite|Artikel|Tage?n?\b|Stunde|Minute|Sekunde|Jahr|Monat|"
    r"Woche|Kilo|Meter|Liter|Tonne|Gramm|Watt|Volt|Quadrat|Hektar|Besuch|Nutzer|User|Follow|Abonn|Aufruf|Klick|Bestell|"
    r"Anfrag|Buchung|Beleg|Rechnung|Vertr|Fäll|Fahrzeug|Gerät|Wohnung|Haushalt|Punkt|Prozent|Schritt|Zuschau|Mitglied|"
    r"Beschäftigt|Arbeits|Bürger|Student|Schüler|Patient|Unternehm|Firmen|Produkt|Einheit|Betrieb|Byte|[KMGT]i?B\b|Kb|"
    r"km|kg|Umdreh|Uhr|Der\b|Die\b|Das\b|Und\b|Im\b|Am\b|In\b|Wir\b|Sie\b|Es\b|Ich\b|EUR|Flug|Kilom|Schritte|Spende|"
    r"Prüf|Test|Transaktion|Gebäude|Paket|Send)\w*)"
)
_PLACE = r"(?:(?:Bad|Sankt|St\.|Markt|Groß|Klein|Alt|Neu) )?[A-ZÄÖÜ][\wäöüß]+(?:[-/](?:[A-ZÄÖÜ]?[\wäöüß]+)){0,3}" \
    r"(?: (?:am|an der|im|in der|bei|ob der|vor der|v\. ?d\.|a\. ?d\.|i\. ?d\.|/) ?[A-ZÄÖÜ][\wäöüß]+)?"  # fmt: skip
_PLACE_AFTER = re.compile(rf" {_COUNTED}(?P<place>{_PLACE}(?: [A-ZÄÖÜ][\wäöüß]+(?=[,.;)\n]|\Z))?)")
_PLACE_LISTED = re.compile(r"[,;|\t] ?(?P<place>[A-ZÄÖÜ][a-zäöüß]+(?:[- ][A-ZÄÖÜ]?[a-zäöüß]+)*)")
_WORD_AFTER = re.compile(r"(?i) (?!euro|stück|mal|und|oder)[a-zäöü]{3,}")
_COUNTRY_BEFORE = re.compile(r"(?<!\w)(?:DE?|A|CH|FL)[ -]?\Z")
_ZIP_BEFORE = re.compile(r"(?i)(?:PLZ|leitzahl|zip|code)\"?[: ]{1,2}\"?\Z")
_STATE_BEFORE = re.compile(
    r"(?<!\w)(?:A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|"
    r"V[AT]|W[AIVY]) \Z"
)


_NUMBER_WORD = (
    r"(?:ein|eins|zwei|zwo|drei|vier|fünf|sechs?|sieb(?:en)?|acht|neun|zehn|elf|zwölf|und|zwanzig|dreißig|dreissig|"
    r"[a-zäöüß]{4}zig|"
    r"hundert){1,6}(?: ?[a-h](?!\w))?(?!\w)"
)
_DICTATED = Rule("street", Kind.ADDRESS, 0.8, re.compile(  # Lindenstraße hundertzwölf
    rf"(?i)(?<![\w-])(?P<find>(?:(?!(?:in|der|die|das|dem|den|eine[rnms]?|diese[rnms]?|"
    rf"straße)(?!\w))[\wäöüß.-]{{2,30}}[ -]){{0,2}}"
    rf"[\wäöüß-]{{0,30}}(?:straße|strasse|str\.|weg|allee|platz|gasse|ring|damm|"
    rf"ufer) (?:Nummer )?{_NUMBER_WORD})"))  # fmt: skip
_DICTATED_PARTS = Parts(
    *(
        f"{end} {word}"
        for end in (
            "straße",
            "strasse",
            "str.",
            "weg",
            "allee",
            "platz",
            "gasse",
            "ring",
            "damm",
            "ufer",
            "Straße",
            "Weg",
        )
        for word in (
            "Num",
            "num",
            "ein",
            "zwe",
            "zwo",
            "dre",
            "vie",
            "fün",
            "sec",
            "sie",
            "ach",
            "neu",
            "zeh",
            "elf",
            "zwö",
            "hun",
        )
    )
)


def streets(text: str, grams: Set[str], runs: Sequence[Window]) -> Iterator[Span]:
    """Streets and postal boxes with their numbers; streets without one; whom `c/o` names."""
    for start, end in runs:
        if end - start > 4 or not (before := word_before(text, start).lstrip('("„“')):
            continue
        window = [(max(start - 60, 0), end + 24)]
        if before.lower().endswith(_LIKE_STREET):
            yield from all_of(_NAMED, text, window)
        elif before[0].isupper() and (text[end : end + 2] == ", " or text[end : end + 1] in _CELL[2:]):
            yield from all_of((_PERHAPS,), text, window)
        if _CODE_AHEAD.match(text, end):
            yield from all_of((_BEFORE_CODE,), text, window)
        if before[0].isupper() and has(text[window[0][0] : start], _PLACE_PARTS):
            yield from all_of((_AT_PLACE, _NAMED_AT), text, window)
    if runs:
        yield from all_of((_LIVES,), text, _LIVES_PARTS.near(text, grams, 5, 100))
    english = [run for run in runs if _ENGLISH_START.match(text, run[1]) and _is_english(text, *run)]
    yield from all_of(_ENGLISH, text, around(english, 24, 60))
    yield from all_of((_DICTATED,), text, _DICTATED_PARTS.near(text, grams, 64, 60))
    if _BOX_PARTS.within(text, grams):
        yield from all_of((_BOX,), text, [(0, len(text))])
    yield from all_of((_BARE,), text, _STREET_PARTS.near(text, grams, 40, 16))
    yield from all_of((_BARE_ENGLISH,), text, _ENGLISH_PARTS.near(text, grams, 40, 12))
    yield from all_of((_CARE,), text, _CARE_PARTS.near(text, grams, 2, 80))


def is_street(name: str) -> bool:
    """Whether what ends like a street isn't another thing that does: `Arbeitsplatz`."""
    return not (_NO_STREET.match(name.split(" ")[-1]) or name.split(" ")[0].lower() in _WHICH)


def _is_english(text: str, start: int, end: int) -> bool:
    if end - start < 5 and (text[max(start - 2, 0) : start] in (", ", ": ") or text[start - 1 : start] == "\n"):
        return True
    return any(word in _ANY_END or word.endswith(_ENGLISH_TAILS) for word in _WORDS.findall(text, end, end + 60))


def postcodes(text: str, runs: Iterable[Window]) -> Iterator[Span]:
    """Postcodes, and the place that follows one."""
    for start, end in runs:
        before = text[max(start - 8, 0) : start]
        if end - start == 5 and not text.startswith("0000", end - 4):
            if _ZIP_BEFORE.search(before) or text.strip() == text[start:end]:
                yield Span(start, end, Kind.POSTCODE, 0.9, "postcode")
                continue
        elif end - start != 4 or not before.endswith(("A-", "CH-", "FL-")):
            continue
        if before and not (before[-1] in " \n(\"'>|;\t,:" or _COUNTRY_BEFORE.search(before)):
            continue
        if match := _PLACE_AFTER.match(text, end):
            yield Span(start, end, Kind.POSTCODE, 0.85, "postcode")
            yield Span(*match.span("place"), Kind.PLACE, 0.8, "postcode")
        elif (before[-1:] in ("", *"\n,;|\t")) and (match := _PLACE_LISTED.match(text, end)):
            yield Span(start, end, Kind.POSTCODE, 0.6, "postcode")
            yield Span(*match.span("place"), Kind.PLACE, 0.6, "postcode")
        elif (before.endswith(("\n", ", ")) and _WORD_AFTER.match(text, end)) or _STATE_BEFORE.search(before):
            yield Span(start, end, Kind.POSTCODE, 0.7, "postcode")
