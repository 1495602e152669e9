"""A report's blocks as plain text, to look for words in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from appliance.compliance.blocks import (
    Block,
    Bullets,
    Heading,
    Listing,
    Mark,
    Pairs,
    Paragraph,
    Table,
    Text,
    Verdict,
    inlines,
)


def plain(blocks: Iterable[Block]) -> str:
    """All that a reader sees, in order, a line for each paragraph, cell or item."""
    return "\n".join(line for block in blocks for line in lines(block))


def lines(block: Block) -> Iterator[str]:
    """The lines of one block."""
    match block:
        case Heading(text):
            yield text
        case Verdict(sentences):
            yield from (f"{'✓' if good else '✗'} {text}" for good, text in sentences)
        case Paragraph(text):
            yield words(text)
        case Bullets(items):
            yield from map(words, items)
        case Listing(found):
            yield from found
        case Pairs(rows):
            yield from (f"{word}: {words(text)}" for word, text in rows)
        case Table():
            yield " | ".join(block.head)
            yield from (" | ".join(map(words, row)) for row in block.rows)


def words(text: Text) -> str:
    """A text without its marks of meaning."""
    return "".join(
        ("✓" if part.holds else "✗") if isinstance(part, Mark) else part if isinstance(part, str) else part.text
        for part in inlines(text)
    )
