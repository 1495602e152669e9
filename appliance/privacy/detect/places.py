"""Towns of Germany, Austria, Switzerland and Britain, by the names that belong to their telephone codes."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

_COUNTRIES = ("49", "43", "41", "44")
_ENTRY = re.compile(rf"^ '(?:{'|'.join(_COUNTRIES)})\d+':\{{'(?:de|en)': (?:u\()?'([^']+)'", re.MULTILINE)
_BEFORE = {
    "bad",
    "st",
    "sankt",
    "markt",
    "neu",
    "alt",
    "groß",
    "klein",
    "the",
    "north",
    "south",
    "east",
    "west",
    "great",
}


def towns() -> frozenset[str]:
    """Lower-case, one word each: of `Bad Rappenau` and `Heide Holstein` the word that says most.

    Read from the data files of phonenumbers, as text: imported they would take seconds and a hundred megabytes.
    """
    spec = find_spec("phonenumbers")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("package phonenumbers is not installed; install it, it holds the names of towns")
    found = set()
    for file in sorted((Path(spec.submodule_search_locations[0]) / "geodata").glob("data*.py")):
        text = file.read_text("utf-8")
        if any(f"'{code}" in text for code in _COUNTRIES):
            for name in _ENTRY.findall(text):
                words = re.findall(r"[^\W\d_]+", name.encode("ascii").decode("unicode_escape").lower())
                found.add(words[1] if len(words) > 1 and words[0] in _BEFORE else words[0])
    return frozenset(word for word in found if len(word) > 2)
