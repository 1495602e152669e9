"""What a report is made of, whatever it is shown as: the page and the paper draw the same blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Code:
    """A name, hash or path: shown in a fixed width, and broken anywhere."""

    text: str


@dataclass(frozen=True, slots=True)
class Strong:
    """What is to be seen first."""

    text: str


@dataclass(frozen=True, slots=True)
class Blank:
    """A line that the company fills in; `text` says with what."""

    text: str


@dataclass(frozen=True, slots=True)
class Mark:
    """✓ or ✗."""

    holds: bool


Inline = str | Code | Strong | Blank | Mark
Text = Inline | tuple[Inline, ...]
"""Plain strings are never markup, in no medium."""


@dataclass(frozen=True, slots=True)
class Heading:
    """Of a section (level 1) or a part of one (level 2)."""

    text: str
    level: int = 1


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph; a small one explains the one above or below it."""

    text: Text
    small: bool = False


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list."""

    items: Sequence[Text]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of at least one row. `widths` are shares of the whole; columns in `right` hold figures."""

    head: Sequence[str]
    widths: Sequence[int]
    rows: Sequence[Sequence[Text]]
    right: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Pairs:
    """Words with what they mean. `kept` ones stay on one page where they can."""

    rows: Sequence[tuple[str, Text]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What it comes to, in a box: sentences, and whether each is a good one. With a bad one, it is white on black."""

    sentences: Sequence[tuple[bool, str]]

    @property
    def holds(self) -> bool:
        """Whether all are good."""
        return all(good for good, _ in self.sentences)


@dataclass(frozen=True, slots=True)
class Listing:
    """Lines as a machine wrote them."""

    lines: Sequence[str]


Block = Heading | Paragraph | Bullets | Table | Pairs | Verdict | Listing


def inlines(text: Text) -> tuple[Inline, ...]:
    """The parts of a text."""
    return text if isinstance(text, tuple) else (text,)
