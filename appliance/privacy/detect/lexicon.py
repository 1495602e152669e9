"""Which words are ordinary and which are names, by dictionaries and lists that installed packages carry."""

from __future__ import annotations

import importlib
import pkgutil
import re
from array import array
from pathlib import Path

import faker.providers.person
import numpy as np
from simplemma.strategies.dictionaries import DefaultDictionaryFactory

Hashes = np.ndarray[tuple[int], np.dtype[np.int64]]
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]+")
_WORDS = Path(__file__).parent / "words"


class Words:
    """A set of words in eight bytes each. Asking takes a microsecond or two."""

    def __init__(self, hashes: Hashes) -> None:
        self._hashes = np.sort(hashes)

    def __contains__(self, word: str) -> bool:
        value = hash(word)
        at = int(self._hashes.searchsorted(value))
        return at < len(self._hashes) and int(self._hashes[at]) == value


class Lexicon:
    """Ordinary words of German and English; first names and surnames of many countries."""

    lower: dict[str, Words]
    """By language: words that are written with a small letter."""
    nouns: Words
    """German nouns that are declined as ordinary ones are (Haus, Hauses, Häuser)."""
    undeclined: Words
    """German words with a capital that have a genitive at most: Milch, Publikum, but Berlin and Müller too."""

    def __init__(self) -> None:
        small, capital, lemmas, declined = array("q"), array("q"), array("q"), array("q")
        for word, lemma in DefaultDictionaryFactory(0).get_dictionary("de").items():
            if word[0].isupper():
                capital.append(hash(word))
                lemmas.append(hash(lemma))
                if word not in (lemma, lemma + "s", lemma + "'"):
                    declined.append(hash(lemma))
            elif lemma.islower() and word.islower():
                small.append(hash(word))
        words, rich = _hashes(capital), np.isin(_hashes(lemmas), _hashes(declined))
        self.nouns, self.undeclined = Words(words[rich]), Words(words[~rich])
        self.base = Words(words[words == _hashes(lemmas)])
        """German nouns as dictionaries list them: Haus, but not Häuser."""
        english = DefaultDictionaryFactory(0).get_dictionary("en").items()
        self.lower = {
            "de": Words(_hashes(small)),
            "en": Words(
                _hashes(array("q", (hash(word) for word, lemma in english if lemma[0].islower() and word.islower())))
            ),
        }
        self.first, self.last = names("")
        """First names and surnames, of all countries that there are lists of."""
        self.german = names("de_")[1]
        """Surnames of Germany, Austria and Switzerland."""


def _hashes(values: array[int]) -> Hashes:
    return np.frombuffer(values, dtype=np.int64)


def read(name: str) -> frozenset[str]:
    """The words of a file of ours: one or more to a line, `#` begins a comment."""
    lines = (_WORDS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines for word in line.partition("#")[0].split())


def names(locales: str) -> tuple[frozenset[str], frozenset[str]]:
    """First names and surnames of the locales that begin so: lower-case, in Latin letters, each part by itself."""
    found: tuple[set[str], set[str]] = set(), set()
    for module in pkgutil.iter_modules(faker.providers.person.__path__):
        if not module.name.startswith(locales):
            continue
        provider = importlib.import_module(f"{faker.providers.person.__name__}.{module.name}").Provider
        for attribute in dir(provider):
            values = getattr(provider, attribute)
            if not isinstance(values, tuple | list | dict) or not (
                "first_name" in attribute or "last_name" in attribute
            ):
                continue
            parts = (part.lower() for name in values if isinstance(name, str) for part in _LATIN.findall(name))
            found["last_name" in attribute].update(part for part in parts if len(part) > 1)
    return frozenset(found[0]), frozenset(found[1])
