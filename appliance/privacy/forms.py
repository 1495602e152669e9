"""The forms in which something can stand in bytes, and whether any of them still holds an original."""

from __future__ import annotations

import base64
import html
import re
import sys
from collections.abc import Collection, Iterable, Iterator

from appliance.privacy.documents import is_json, leaves
from appliance.privacy.finder import LONGEST, Finder
from appliance.privacy.said import PROTOCOL
from appliance.privacy.spelling import plain, words, written_out

_ESCAPE = re.compile(
    r"\\u([0-9a-fA-F]{4})|\\u\{([0-9a-fA-F]{1,6})\}|\\U([0-9a-fA-F]{8})|"
    r"\bU\+([0-9a-fA-F]{4,6})(?: (?=U\+))?|\\[nrtbf/\"]"
)
_BACKSLASHES = re.compile(r"\\{2,}")
_BYTES = re.compile(r"(?:%[0-9a-fA-F]{2})+|(?:=[0-9A-F]{2})+|(?:\\x[0-9a-fA-F]{2})+|(?:\\[0-7]{3}){2,}")
_SOFT_BREAK = re.compile(r"=\r?\n")
_PUNYCODE = re.compile(r"xn--([a-z0-9-]+)", re.IGNORECASE)
_SPLIT = re.compile(r"(?<=\w)[-\u00ad\u2010][ \t\r]{0,4}\n[ \t]{0,8}(?=\w)|(?<=\w)</?[A-Za-z][^<>]{0,60}>")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{6,}(?:\s{1,3}[A-Za-z0-9+/_-]{20,})*")
_HEX = re.compile(r"(?:0x[0-9a-fA-F]{2}[ ,]{0,2}){4,}|(?:[0-9a-fA-F]{2}[ :,]?){4,}")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]")
_READABLE = re.compile(r"[A-Za-z0-9 \n]")
_BLOB = re.compile(r"[A-Za-z0-9+/]{40,}")
_ALL_SORTS = tuple(map(re.compile, ("[a-z]", "[A-Z]", "[0-9]")))
_SPELT = re.compile(r"(?<![^\W_])[^\W\d_]([-._*/~·•])[^\W\d_](?:\1[^\W\d_]){3,}(?![^\W_])")
"""Five letters, each by itself."""
_DATA_URL = re.compile(r"\bdata:[\w.+/-]*(?:;[\w=-]+)*,", re.IGNORECASE)
_MOST_GARBAGE = 0.1
"""Of the characters of what was decoded; where there are more, it wasn't text."""
_LEAST_READABLE, _FEWEST_READABLE = 0.8, 11
"""Of what was decoded, and how many, that are no coincidence."""
_WIDE = ("utf-16-le", "utf-16-be")
_DEPTH = 2
"""Encodings around encodings that are looked through."""
_LAYERS = 3
"""Of escapes, likewise."""
_LONG, _LONG_NUMBER = 10, 7
"""Letters of some words, and characters of a value with digits, that are no coincidence wherever they stand."""
_CODES = ("base64", "hex")
_SHORT = 3
"""Letters that decoded noise holds by coincidence."""
_BETWEEN = "\n" * 4
"""Strings of a JSON body; wider than any gap inside a value."""


class Traces:
    """Everything that may not stand in what is sent, ready for many searches."""

    def __init__(self, originals: Iterable[str], names: Iterable[str] = ()) -> None:
        """`names`: those that may not stand inside a longer word either, see `Finder`."""
        values, inside = list(dict.fromkeys(originals)), list(names)
        self._finder = Finder(values, inside)
        self._finder_in_codes = Finder((value for value in values if len(_squeezed(value)) > _SHORT), inside)
        self._long = {
            whole
            for value in values
            if any(map(str.isdigit, value)) or len(value) > LONGEST or len(words(value)) > 1
            for whole in (_squeezed(plain(value)), _squeezed(written_out(value)))
            if len(whole) >= (_LONG_NUMBER if any(map(str.isdigit, whole)) else _LONG)
        }

    def remain(self, body: bytes, models: Collection[str] = ()) -> str | None:
        """The form in which one of them stands in `body`: `escaped`, `base64`, ...; None when none does.

        Of JSON, every string, key and number is looked at, but for names of models and keys of the protocol, which
        might be like somebody's; of anything else, all of it.
        """
        for form, text in forms(_all_text(body, models)):
            finder = self._finder_in_codes if form in _CODES else self._finder
            if any(True for _ in finder.find(text)):
                return form
            whole = _squeezed(plain(text))
            if any(value in whole for value in self._long):
                return "run together" if form == "plain" else form
        return None


def remains(body: bytes, originals: Iterable[str]) -> str | None:
    """The form in which one of `originals` stands in `body`; None when none does. See `Traces`."""
    return Traces(originals).remain(body)


def forms(text: str, depth: int = _DEPTH) -> Iterator[tuple[str, str]]:
    """What a text can be read as, and the form in which it then stands there."""
    yield "plain", text
    if (joined := _SPLIT.sub("", text)) != text:
        yield "split", joined
    for _ in range(_LAYERS):
        before, text = text, _unescaped(text)
        if text == before:
            break
        yield "escaped", text
    if depth:
        for form, decoded in zip(_CODES, (_from_base64(text), _from_hex(text)), strict=True):
            whole = _BETWEEN.join(each for data in decoded for each in _as_text(data))
            if whole:
                yield from ((form, inner) for _, inner in forms(whole, depth - 1))


def encoded(text: str) -> bool:
    """Whether a text holds what no detector reads: something encoded, be it text or not, or spelt letter by letter."""
    if _DATA_URL.search(text) or _SPELT.search(text):
        return True
    if any(all(sort.search(blob[0]) for sort in _ALL_SORTS) for blob in _BLOB.finditer(text)):
        return True
    for escape in (*_BYTES.finditer(text), *_ESCAPE.finditer(text)):
        if any(map(str.isalpha, _unescaped(escape[0]))):
            return True
    return any(
        len(decoded) >= _FEWEST_READABLE and len(_READABLE.findall(decoded)) >= _LEAST_READABLE * len(decoded)
        for decodings in (_from_base64(text), _from_hex(text))
        for data in decodings
        for decoded in _as_text(data)
    )


def _all_text(body: bytes, models: Collection[str]) -> str:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = body.decode("latin-1")
    if not is_json(text):
        return text
    ours = {"key": PROTOCOL, "string": models, "number": ()}
    return _BETWEEN.join(leaf.text for leaf in leaves(text) if leaf.text not in ours[leaf.form])


def _squeezed(text: str) -> str:
    return re.sub(r"[\W_]+", "", text)


def _unescaped(text: str) -> str:
    """Without one layer of escapes: of JSON and programs, URLs, HTML, mail, and domain names."""
    if "\\" in text:
        text = _BACKSLASHES.sub(r"\\", text)  # however often it was escaped
    if any(mark in text for mark in "\\%="):
        text = _BYTES.sub(_from_bytes, _SOFT_BREAK.sub("", text))
    if "\\" in text or "U+" in text:
        text = _ESCAPE.sub(_from_escape, text)
    if "&" in text:
        text = html.unescape(text)
    if "xn--" in text.lower():
        text = _PUNYCODE.sub(_from_punycode, text)
    return text


def _from_escape(escape: re.Match[str]) -> str:
    code = int(escape[escape.lastindex], 16) if escape.lastindex else ord(" ")
    return chr(code) if code <= sys.maxunicode else escape[0]


def _from_bytes(run: re.Match[str]) -> str:
    if run[0][:1] == "\\" and run[0][1].isdigit():
        data = bytes(int(octal, 8) & 0xFF for octal in run[0].split("\\")[1:])
    else:
        data = bytes.fromhex(re.sub(r"[^0-9a-fA-F]", "", run[0]))
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _from_punycode(name: re.Match[str]) -> str:
    try:
        return name[1].encode().decode("punycode")
    except UnicodeError:
        return name[0]


def _from_base64(text: str) -> Iterator[bytes]:
    """Whatever could be base64, at each of the places where its first group of four could begin."""
    for match in _BASE64.finditer(text):
        token = match[0]
        if token.isalpha() and (token.islower() or token.istitle() or token.isupper()):
            continue  # a word
        token = re.sub(r"\s", "", token).replace("-", "+").replace("_", "/")
        for offset in range(min(4, len(token) - 3)):
            part = token[offset:]
            part = part[:-1] if len(part) % 4 == 1 else part
            yield base64.b64decode(part + "=" * (-len(part) % 4))


def _from_hex(text: str) -> Iterator[bytes]:
    for match in _HEX.finditer(text):
        yield bytes.fromhex(re.sub(r"0x|[ :,]", "", match[0]))


def _as_text(data: bytes) -> Iterator[str]:
    """In whichever encoding it is text at all."""
    if b"\0" in data:  # UTF-16, of which the first byte may be missing; with zeros gone, that of Western languages
        data = data.strip(b"\xff\xfe")
        yield from (part.decode(encoding, "ignore") for part in (data, data[1:]) for encoding in _WIDE)
        data = data.replace(b"\0", b"")
    for encoding in ("utf-8", "latin-1"):
        text = data.decode(encoding, "replace")
        if len(_CONTROL.findall(text)) <= _MOST_GARBAGE * len(text):
            yield text
            if text.isascii():
                return
