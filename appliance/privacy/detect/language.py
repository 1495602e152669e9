"""Which language a text is in, by its commonest words."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.privacy.detect.lexicon import read


class Languages:
    """German, English, or neither."""

    def __init__(self) -> None:
        self._common = {code: read(f"common_{code}") for code in ("de", "en", "other")}

    def of(self, words: Sequence[str]) -> str:
        """`de`, `en`, `other`; empty where hardly a word tells."""
        counts = {code: sum(word.lower() in common for word in words) for code, common in self._common.items()}
        best = max(counts, key=lambda code: counts[code])
        others = sum(counts.values()) - counts[best]
        if best == "other":
            return best if counts[best] >= 3 and counts[best] > 2 * others and counts[best] >= 0.15 * len(words) else ""
        return best if counts[best] > others or (counts[best] and counts[best] == others) else ""
