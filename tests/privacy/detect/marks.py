"""Texts in which what is to be found is marked: `Ruf [[phone:089 1234567]] an.`"""

from __future__ import annotations

import re

from appliance.privacy.detect.patterns import Patterns
from appliance.privacy.kinds import Kind

_MARK = re.compile(r"\[\[(\w+):(.*?)\]\]", re.DOTALL)


def wrong(patterns: Patterns, marked: str) -> list[str]:
    """What is amiss: marked and not found as a whole under that kind, or found and not marked."""
    text, marks = unmarked(marked)
    spans = patterns.find(text)
    faults = []
    for start, end, kind in marks:
        hit = {at for span in spans if span.kind is kind for at in range(span.start, span.end)}
        if not all(at in hit or not text[at].isalnum() for at in range(start, end)):
            faults.append(f"missed {kind}: {text[start:end]}")
    for span in spans:
        inside = any(start <= span.start and span.end <= end for start, end, _ in marks)
        if not inside:
            faults.append(f"found {span.kind} by {span.source}: {text[span.start : span.end]}")
    return faults


def unmarked(marked: str) -> tuple[str, list[tuple[int, int, Kind]]]:
    """The text without its marks, and where they were."""
    text, marks, done = "", [], 0
    for match in _MARK.finditer(marked):
        text += marked[done : match.start()]
        marks.append((len(text), len(text) + len(match[2]), Kind(match[1])))
        text += match[2]
        done = match.end()
    return text + marked[done:], marks
