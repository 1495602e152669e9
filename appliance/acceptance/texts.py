"""What the gate says and reads: fixed, ours, and dull. Another word in it is another set to compare by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tongue:
    """The gate's words in one language."""

    plain: str
    """What anybody could have written: a right model finds it likely."""
    questions: tuple[str, ...]
    """Those of the answers with a fixed seed."""
    alike: tuple[str, str]
    """Two texts of one meaning."""
    unlike: str
    """A text of another."""


ENGLISH = Tongue(
    plain=(
        "The town lies on a river, and most of its people work in the factories along the bank. In the morning the "
        "streets are full of men and women on their way to work, and in the evening they come home again. On Sundays "
        "families walk along the water, children play in the park, and the old people sit on the benches and talk "
        "about the weather. In winter it is often cold, and there is snow on the roofs until March. Nobody who was "
        "born here would want to live anywhere else."
    ),
    questions=(
        "What is the capital of France?",
        "Count from one to ten.",
        "Name three animals that live in the sea.",
        "Explain in one sentence why the sky is blue.",
    ),
    alike=("The train to the city leaves at noon.", "At twelve o'clock the train departs for the city."),
    unlike="He boiled the potatoes with a little salt.",
)
GERMAN = Tongue(
    plain=(
        "Die Stadt liegt an einem Fluss, und die meisten Menschen arbeiten in den Fabriken am Ufer. Am Morgen sind die "
        "Straßen voll von Männern und Frauen auf dem Weg zur Arbeit, und am Abend kommen sie wieder nach Hause. Am "
        "Sonntag gehen die Familien am Wasser spazieren, die Kinder spielen im Park, und die alten Leute sitzen auf "
        "den Bänken und reden über das Wetter. Im Winter ist es oft kalt, und bis in den März liegt Schnee auf den "
        "Dächern. Niemand, der hier geboren ist, würde gerne woanders leben."
    ),
    questions=(
        "Was ist die Hauptstadt von Frankreich?",
        "Zähle von eins bis zehn.",
        "Nenne drei Tiere, die im Meer leben.",
        "Erkläre in einem Satz, warum der Himmel blau ist.",
    ),
    alike=("Der Zug in die Stadt fährt mittags ab.", "Um zwölf Uhr geht der Zug in die Stadt."),
    unlike="Er kochte die Kartoffeln mit etwas Salz.",
)
ROUND_TRIP = "Grüße aus Köln: 1 + 1 = 2, “naïve” café, 10 €; x_1 <b>\n\tzwei"
"""Through the tokenizer and back."""


def tongues(languages: Iterable[str]) -> dict[str, Tongue]:
    """By its name, the gate's words in those of a card's `languages` that it speaks; English where it speaks none."""
    known = {"English": ("en", ENGLISH), "German": ("de", GERMAN)}
    spoken = {language.split("-")[0].lower() for language in languages}
    return {name: tongue for name, (tag, tongue) in known.items() if tag in spoken} or {"English": ENGLISH}


def version(*parts: str) -> str:
    """A digest of what was said, to tell whether two engines were asked the same."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
