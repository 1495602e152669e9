"""Puts originals back into what a model answered, while it streams."""

from __future__ import annotations

import json as json_format
import re
from collections.abc import Mapping
from typing import NamedTuple

from appliance.privacy.placeholders import FORMS, PADDED, SPELLING, Spelling, spelt

_CONTEXT = 200
"""Characters before a genitive that tell its language."""
_GERMAN = re.compile(r"\b(?:der|die|das|den|dem|des|ein|eine|und|ist|hat|mit|von|für|nicht|sich|auf|im|zu|wird|bei)\b")
_ENGLISH = re.compile(r"\b(?:the|a|an|and|is|has|was|with|of|for|not|on|to|by|that|this|it|are|will|be|from|your)\b")
_VALUES = frozenset({"alter", "datum", "kennung"})
"""Stems of what is no name: it has no genitive, and its letters stay as they are."""


class _Original(NamedTuple):
    text: str
    named: bool


class _Channel:
    """The end of what a channel has shown, and what is held back after it."""

    __slots__ = ("before", "held", "json")

    def __init__(self, json: bool) -> None:  # noqa: FBT001 - as `feed` was asked
        self.before = ""
        self.held = ""
        self.json = json


class Restorer:
    """Puts originals back in place of placeholders, for one answer.

    A channel is whatever has a text of its own: a choice, a tool call, a content block. However its text is cut into
    chunks, the same comes out. Placeholders are known by stem and number and never by likeness; one that stands for
    nothing stays as it is. What was put back is never looked at again, so an original can't turn into another's.
    """

    def __init__(self, originals: Mapping[str, str]) -> None:
        """`originals`: placeholder, such as `Klient_001`, to what it stands for."""
        self._channels: dict[str, _Channel] = {}
        self._originals: dict[tuple[str, str], _Original] = {}
        unpadded: dict[tuple[str, str], list[_Original]] = {}
        for placeholder, text in originals.items():
            stem, _, digits = placeholder.lower().rpartition("_")  # with its form
            original = _Original(text, stem not in _VALUES)
            self._originals[stem, digits] = original
            unpadded.setdefault((stem, digits.lstrip("0")), []).append(original)
        self._unpadded = {key: found[0] for key, found in unpadded.items() if len(found) == 1}
        self._longest = max([PADDED, *(len(digits.rstrip("".join(FORMS))) for _, digits in self._originals)])
        self.restored = 0
        """Placeholders that were replaced."""
        self.unknown = 0
        """Placeholders that stand for nothing: the model made them up."""

    def feed(self, channel: str, text: str, *, json: bool = False) -> str:
        """What of the channel can be shown now; at most the beginning of one placeholder is held back.

        `json`: what the channel holds is a JSON document, so originals are escaped for its strings.
        """
        state = self._channels.get(channel)
        if state is None:
            state = self._channels[channel] = _Channel(json)
        whole = state.before + state.held + text
        match = SPELLING.search(whole, len(state.before))
        if match is None:
            shown, waits = state.held + text, len(whole)
            state.held = ""
        else:
            shown, waits = self._replaced(whole, state, match)
            state.held = whole[waits:]
        state.before = whole[max(0, waits - _CONTEXT) : waits]
        return shown

    def finish(self, channel: str) -> str:
        """What was held back, now that the channel has ended."""
        state = self._channels.pop(channel, None)
        if state is None or not state.held:
            return ""
        # no placeholder goes on after the end of a line, so before one nothing waits
        whole = f"{state.before}{state.held}\n"
        return self._replaced(whole, state, SPELLING.search(whole, len(state.before)))[0][:-1]

    def _replaced(self, whole: str, channel: _Channel, match: re.Match[str] | None) -> tuple[str, int]:
        """What comes after the channel's `before`, with originals in it, and where begins what has to wait."""
        shown = []
        done = len(channel.before)
        while match is not None:
            if match.end() == len(whole) and len(match["digits"] or "") <= self._longest:
                shown.append(whole[done : match.start()])
                return "".join(shown), match.start()
            spelling = spelt(match)
            # a letter behind a number that nobody knows can begin the next placeholder
            at = match.start() + 1 if spelling is None else match.end("digits" if match["digits"] else "loose")
            if spelling is not None and (original := self._original(spelling)) is not None:
                name, ending = _written(original, spelling, whole)
                if channel.json:
                    name = json_format.dumps(name, ensure_ascii=False)[1:-1]
                shown += whole[done : spelling.start], name, ending
                done = at = spelling.end + len(spelling.ending)
            match = SPELLING.search(whole, at)
        shown.append(whole[done:])
        return "".join(shown), len(whole)

    def _original(self, spelling: Spelling) -> _Original | None:
        stem, number = spelling.stem.lower(), spelling.digits + spelling.form
        original = self._originals.get((stem, number))
        if original is None and len(spelling.digits) < PADDED:
            original = self._unpadded.get((stem, number.lstrip("0")))
        if original is None:
            self.unknown += 1
        else:
            self.restored += 1
        return original


def _written(original: _Original, spelling: Spelling, whole: str) -> tuple[str, str]:
    """The original and the ending as they have to stand in the placeholder's place."""
    name, ending = original.text, spelling.ending
    if original.named:
        if ending:
            ending = _genitive(name, ending, whole[max(0, spelling.start - _CONTEXT) : spelling.start])
        if spelling.stem.isupper():
            name = name.upper()
    return name, ending


def _genitive(name: str, ending: str, before: str) -> str:
    """The genitive's ending of a name, where a placeholder had `ending`: Müllers, Schmitz'; in English Schmitz's."""
    apostrophe = ending[:-1]
    if apostrophe and len(_GERMAN.findall(before)) <= len(_ENGLISH.findall(before)):
        return ending
    if name[-1:].lower() in ("s", "ß", "x", "z") or name[-2:].lower() == "ce":
        return apostrophe or "\u2019"
    return ending[-1:]
