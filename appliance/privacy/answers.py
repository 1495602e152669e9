"""What detectors answer, believed only where it can be true."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TypeVar

from appliance.privacy.asked import Detect, DetectorFailed
from appliance.privacy.kinds import Kind, Span

T = TypeVar("T")


class Checked:
    """A `Detect` that raises `DetectorFailed` for whatever goes wrong, and for answers that are none."""

    def __init__(self, detect: Detect) -> None:
        self._detect = detect

    async def find(self, texts: Sequence[str], *, strict: bool = False) -> list[list[Span]]:
        """See `Detect`."""
        found = await _answers(self._detect.find(texts, strict=strict), texts, list) if texts else []
        for text, spans in zip(texts, found, strict=True):
            for span in spans:
                _check(text, span)
        return found

    async def language(self, texts: Sequence[str]) -> list[str]:
        """See `Detect`."""
        return await _answers(self._detect.language(texts), texts, str) if texts else []

    async def known(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """See `Detect`."""
        unknown = await _answers(self._detect.known(texts), texts, list) if texts else []
        for text, places in zip(texts, unknown, strict=True):
            for place in places:
                match place:
                    case (int(start), int(end)):
                        _check(text, Span(start, end, Kind.WORD))
                    case _:
                        raise DetectorFailed("a word that is none")
        return unknown


async def _answers(asking: Awaitable[list[T]], texts: Sequence[str], kind: type[T]) -> list[T]:
    try:
        answers = await asking
    except DetectorFailed:
        raise
    except Exception as cause:  # of whatever kind: it comes from outside
        raise DetectorFailed(type(cause).__name__) from cause
    if not isinstance(answers, list) or len(answers) != len(texts):
        raise DetectorFailed("not one answer for each text")
    if not all(isinstance(answer, kind) for answer in answers):
        raise DetectorFailed("an answer of another kind")
    return answers


def _check(text: str, span: object) -> None:
    match span:
        case Span(start=int(start), end=int(end), kind=Kind()) if 0 <= start < end <= len(text):
            return
    raise DetectorFailed("a find that is none")
