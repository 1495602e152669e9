"""All detectors together: any text, in time that grows with its length, also after a fork."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.privacy.detect.detector import Detector
from appliance.privacy.detect.union import union
from appliance.privacy.kinds import Kind, Span

LONG = {
    "one word": "a",
    "spaces": " ",
    "lines": "\n",
    "hyphens": "Müller-",
    "initials": "A. ",
    "titles": "Herr ",
    "greetings": "Hallo ",
    "particles": "von ",
    "legal forms": "A GmbH ",
    "quotation marks": "\" '",
    "placeholders": "Klient_001 ",
    "nothing to see": "a\u200b",
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=120), st.booleans())
def test_any_text_gives_finds_in_order_within_it(detector: Detector, text: str, strict: bool) -> None:
    end = 0
    for span in detector.find(text, strict=strict):
        assert end <= span.start < span.end <= len(text)
        end = span.end


def test_half_a_character_is_no_error(detector: Detector) -> None:
    text = "Frau \ud800 Vogelsang \x00\x1b[31m 😀 kommt"
    assert "Vogelsang" in [text[span.start : span.end] for span in detector.find(text)]


@pytest.mark.long
@pytest.mark.parametrize("part", LONG.values(), ids=LONG.keys())
def test_time_grows_with_the_length_alone(detector: Detector, part: str) -> None:
    def seconds(characters: int) -> float:
        start = time.process_time()
        detector.find(part * (characters // len(part)))
        return time.process_time() - start

    assert seconds(80_000) < 10 * seconds(20_000) + 0.5


def test_a_long_text_in_one_line_is_looked_at_to_its_end(detector: Detector) -> None:
    text = "und dann noch etwas, " * 400 + "das weiß Vogelsang"
    assert text[detector.find(text)[-1].start :] == "Vogelsang"


def test_it_works_in_a_child_that_was_forked_after_loading(detector: Detector) -> None:
    text = "Frau Vogelsang und Xarvelio Tresmann"
    here = detector.find(text)
    child = os.fork()
    if child == 0:
        os._exit(0 if detector.find(text) == here else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    "text",
    [
        "<table><tr><td>Nachname</td><td>Alter</td></tr><tr><td>lange</td><td>81</td></tr></table>",
        "Nachname;Alter\nlange;81",
        '{"nachname": "lange", "groesse": 1, "alter": 81}\nAlter: 81',
    ],
    ids=["HTML", "CSV", "record"],
)
def test_what_is_nothing_by_itself_is_what_its_heading_says(detector: Detector, text: str) -> None:
    assert {"lange", "81"} <= {text[span.start : span.end] for span in detector.find(text)}


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Bitte fasse den folgenden Text in drei Sätzen zusammen.", "de"),
        ("kannst du das kürzer machen", "de"),
        ("Please summarise the following text in three sentences.", "en"),
        ("can you make this shorter", "en"),
        ("Bonjour, est-ce que vous pouvez nous envoyer le contrat pour la maison ?", "other"),
        ("Dzień dobry, proszę przesłać mi to jak najszybciej, ale nie dla mnie.", "other"),
        ('{"id": 4711, "values": [1, 2, 3]}', ""),
        ("Apfel, Birne, Banane", ""),
        ("", ""),
    ],
)
def test_the_language_of_short_texts(detector: Detector, text: str, language: str) -> None:
    assert detector.language(text) == language


def test_words_that_no_list_knows(detector: Detector) -> None:
    text = "Bitte prüfen Sie die Rechnung von Quaxelbrumm und Klient_001."
    assert [text[start:end] for start, end in detector.known(text)] == ["Quaxelbrumm"]


def test_overlapping_finds_become_one_of_the_longest_ones_kind() -> None:
    spans = [Span(0, 4, Kind.PERSON), Span(3, 12, Kind.EMAIL), Span(20, 22, Kind.WORD), Span(22, 25, Kind.PLACE)]
    assert [(each.start, each.end, each.kind) for each in union(spans)] == [
        (0, 12, Kind.EMAIL),
        (20, 22, Kind.WORD),
        (22, 25, Kind.PLACE),
    ]


def test_a_secret_inside_another_find_keeps_the_whole_in_the_house() -> None:
    assert [each.kind for each in union([Span(0, 40, Kind.URL), Span(30, 36, Kind.SECRET)])] == [Kind.SECRET]
