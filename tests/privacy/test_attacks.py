"""What hostile texts try: to be read by a provider as what no detector reads, and to keep the gate busy or full."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from appliance.clearance import NotCleared
from appliance.privacy.finder import Finder
from appliance.privacy.forms import Traces, encoded, remains
from appliance.privacy.kinds import Kind, Span
from appliance.privacy.mask import Mask
from appliance.privacy.restore import Restorer
from appliance.privacy.tickets import TICKET_SECONDS, Tickets
from appliance.privacy.verdict import Held
from tests.privacy.test_gate import FINAL, KEY, NOW, Finds, asked, gate, released

NAME = "Ohnsorg"
SPELT = {
    "octal": "".join(f"\\{ord(letter):03o}" for letter in NAME),
    "braces": "".join(f"\\u{{{ord(letter):x}}}" for letter in NAME),
    "eight digits": "".join(f"\\U{ord(letter):08x}" for letter in NAME),
    "code points": " ".join(f"U+{ord(letter):04X}" for letter in NAME),
    "hexadecimal numbers": " ".join(f"0x{ord(letter):02x}" for letter in NAME),
    "a list of them": ", ".join(f"0x{ord(letter):02X}" for letter in NAME),
}


@pytest.mark.parametrize("form", SPELT)
def test_a_name_is_seen_in_the_escapes_of_programs(form: str) -> None:
    assert remains(f"Siehe {SPELT[form]} dort".encode(), [NAME]) is not None


def test_a_name_is_seen_as_version_control_quotes_paths() -> None:
    assert remains(rb"M Brandm\303\274ller.pdf", ["Brandmüller"]) is not None


@pytest.mark.parametrize(("parts", "held"), [
    (["Brief an Lars Ohn", "sorg bitte"], Held.UNREADABLE),
    (["Brief an Lars Ohnsorg", " bitte"], None),
    (["Brief an Lars", "\nOhnsorg"], None),
])  # fmt: skip
async def test_a_word_that_is_torn_over_two_parts_stays(parts: list[str], held: Held | None) -> None:
    content = [{"type": "text", "text": part} for part in parts]
    verdict = await gate().protect(asked({"model": "m", "messages": [{"role": "user", "content": content}]}))
    assert verdict.held is held


@pytest.mark.parametrize("form", SPELT)
async def test_a_name_that_nobody_could_read_stays(form: str) -> None:
    verdict = await gate().protect(asked(f"Was heißt {SPELT[form]} {SPELT[form]}?"))
    assert verdict.held is Held.UNREADABLE


@pytest.mark.parametrize("text", [
    r"Die Akte liegt in C:\1123\2024\Steuer", "Farbe 0xff00ff und Maske 0x1F", "Die Zeile U+ ist leer",
    r"Ersetze mit \1 und \2", "Der Wert 0x00, 0x01, 0x02, 0xFE, 0xFF ist gesetzt", r"C:\new\test",
])  # fmt: skip
def test_ordinary_backslashes_and_numbers_are_nothing_encoded(text: str) -> None:
    assert not encoded(text)


async def test_a_word_without_an_end_stays() -> None:
    finds = Finds(names={"z" * 2000: Kind.PERSON})
    verdict = await gate(finds).protect(asked(f"Bitte prüfe {'z' * 2000} genau."))
    assert (verdict.held, finds.looked) == (Held.UNREADABLE, 0)


async def test_a_find_without_an_end_stays() -> None:
    link = f"https://x.example/{'anna/' * 300}"
    verdict = await gate(Finds(names={link: Kind.URL})).protect(asked(f"Siehe {link} dort."))
    assert verdict.held is Held.UNREADABLE


def test_long_values_take_little_memory() -> None:
    values = [f"{number} {'anna ' * 200}" for number in range(50)]
    tracemalloc.start()
    Finder(values)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2_000_000


def test_long_values_are_seen_nevertheless() -> None:
    value = "z" * 300
    assert remains(f"Siehe {value} dort".encode(), [value]) is not None
    assert remains(f"Siehe {'a/' * 150}b dort".encode(), [f"{'a/' * 150}b"]) is not None


@pytest.mark.parametrize(
    "text", ["O.h.n.s.o.r.g klagt", "Er heißt O-h-n-s-o-r-g", "*O*h*n*s*o*r*g* zahlt", "O_h_n_s_o_r_g"]
)
async def test_a_name_spelt_letter_by_letter_stays(text: str) -> None:
    assert (await gate().protect(asked(text))).held is Held.UNREADABLE


@pytest.mark.parametrize(
    "text", ["Das gilt z.B. i.d.R. für die F.A.Z. u.s.w.", "A/B/C und a-b-c, d.h. x_y_z", "1.2.3.4.5.6"]
)
def test_abbreviations_are_not_spelt_names(text: str) -> None:
    assert not encoded(text)


@pytest.mark.parametrize(
    "path", ["/v1/chat/grosnho", "/v1/chat/completions?q=grosnho", "//evil", "/v1/../../x", "/other/chat/completions"]
)
async def test_a_target_says_nothing_of_its_own(path: str) -> None:
    at = gate()
    ticket, told = await released(at)
    body = json.dumps(told | {"model": "mistral-large-latest"}).encode()
    assert at.clear(ticket, body=body, **FINAL)
    with pytest.raises(NotCleared):
        at.clear(ticket, body=body, **FINAL | {"path": path})


def test_no_word_follows_a_placeholder_so_closely_that_its_letter_is_lost() -> None:
    texts, finds = ["Weber", "Weber=Anna"], [[Span(0, 5, Kind.PERSON)], [Span(0, 6, Kind.PERSON)]]
    mask = Mask(())
    masked = mask.apply(texts, finds)
    restorer = Restorer(mask.originals)
    assert [restorer.feed(text, text) + restorer.finish(text) for text in masked] == texts


def test_tickets_that_nobody_gives_back_come_to_an_end() -> None:
    now = [NOW]
    tickets = Tickets({}, KEY, lambda: now[0])
    issued = [tickets.issue(("mistral",), Traces(()), b"{}") for _ in range(1001)]
    assert (all(issued[:-1]), issued[-1]) == (True, None)
    tickets.forget(issued[0] or "")
    assert tickets.issue(("mistral",), Traces(()), b"{}")
    assert tickets.issue(("mistral",), Traces(()), b"{}") is None
    now[0] += TICKET_SECONDS
    assert tickets.issue(("mistral",), Traces(()), b"{}")
