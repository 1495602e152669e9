"""How names of persons are written, and when two of them look alike."""

from __future__ import annotations

import re
import unicodedata

PSEUDONYM = re.compile(r"p_[0-9a-f]{24}")
"""What persons are called where nobody may be named."""
INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Characters that nothing is shown of: Unicode's Default_Ignorable_Code_Point."""


def proper(name: str) -> str:
    """The one way to write `name`: composed letters (NFC), no spaces at its ends, and never two of them in a row."""
    return " ".join(filter(None, unicodedata.normalize("NFC", name).split(" ")))


def alike(name: str) -> str:
    """The same for all ways to write what people read as one name: without case, width, form, spaces, invisibles."""
    seen = INVISIBLE.sub("", unicodedata.normalize("NFKC", name))
    return " ".join(unicodedata.normalize("NFKC", seen.casefold()).split())
