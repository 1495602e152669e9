"""Personal documents made by chance, of which everything personal is known.

Sentences and forms are written by hand (benchmarks/frames/), the people in them are drawn (benchmarks/identities.py).
A frame's words and a person's name never coincide, so that a name that is found anywhere is the person's.
"""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.privacy.kinds import Kind
from benchmarks.identities import KINDS, Person, Registry

GERMAN = 0.7
_NO_SHIFT = 0.4
"""Share of chats in which nobody presses the shift key."""
_FRAMES = Path(__file__).parent / "frames"
_LETTERS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class Document:
    """A request and the personal values in it, as they stand there."""

    id: str
    language: str
    form: str
    """`letter`, `mail`, `chat`, `form`, `notes`, `tool`, `json` or `csv`."""
    payload: dict[str, Any]
    """Body of a chat completion."""
    originals: tuple[tuple[Kind, str], ...]


class _Writer(string.Formatter):
    """Fills frames: `{a.full}` is the first person's whole name, `{b.phone}` another's number. Keeps what it put in."""

    def __init__(self, people: dict[str, Person], case: Callable[[str], str]) -> None:
        self._people = people
        self._case = case
        self.originals: dict[tuple[Kind, str], None] = {}

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[str, str]:
        who, attribute = field_name.split(".")
        value = self._case(getattr(self._people[who], attribute))
        self.originals[KINDS[attribute], value] = None
        return value, field_name

    def write(self, frame: str) -> str:
        return self._case(self.vformat(frame, (), {}))


class Frames:
    """The sentences of one language: a file of sections `# letter.body`, a frame on each line, `\\n` for line ends."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._sections: dict[str, list[str]] = {}
        for line in (_FRAMES / f"{language}.txt").read_text("utf-8").splitlines():
            if line.startswith("# "):
                section = self._sections.setdefault(line[2:], [])
            elif line:
                section.append(line.replace("\\n", "\n"))

    def some(self, chance: random.Random, section: str, least: int = 1, most: int = 1) -> list[str]:
        """Different frames of a section, at random."""
        return chance.sample(self._sections[section], chance.randint(least, most))

    @property
    def words(self) -> frozenset[str]:
        """Every word of every frame, in lower case."""
        frames = "\n".join(frame for section in self._sections.values() for frame in section)
        return frozenset(word.lower() for word in _LETTERS.findall(re.sub(r"\{[^}]*\}", " ", frames)))


def documents(count: int = 3000, seed: int = 1) -> Iterator[Document]:
    """So many documents, 70 % German and 30 % English; the same for the same seed."""
    registry, frames = Registry(), {language: Frames(language) for language in ("de", "en")}
    taken = frames["de"].words | frames["en"].words | registry.words | {*_LETTERS.findall(_WIRE)}
    first, last = (
        [name for name in names if not taken & {word.lower() for word in _LETTERS.findall(name)}]
        for names in (registry.first, registry.last)
    )
    for number in range(count):
        chance = random.Random(f"{seed} {number}")  # noqa: S311 - invented people, no secret
        language = "de" if chance.random() < GERMAN else "en"
        people = {who: _person(chance, first, last, language) for who in "abc"}
        form = chance.choice(list(_FORMS))
        writer = _Writer(people, _lower if form == "chat" and chance.random() < _NO_SHIFT else str)
        messages, more = _FORMS[form](chance, frames[language], writer.write)
        payload: dict[str, Any] = {"model": "chat", "messages": messages, **more}
        yield Document(f"document {number}", language, form, payload, tuple(writer.originals))


def _lower(text: str) -> str:
    """As somebody types it: the lower-case form of a dotted capital I is an i with one dot, not with two."""
    return text.lower().replace("i\u0307", "i")


_WIRE = """model chat messages role user system assistant tool content name function type text arguments id parameters
properties description string object stream max tokens"""
"""Words of the wire format itself."""


def _person(chance: random.Random, first: Sequence[str], last: Sequence[str], language: str) -> Person:
    family = chance.choice(last)
    if chance.random() < 0.06 and " " not in family:
        family = f"{family}-{chance.choice([name for name in last if ' ' not in name and '-' not in name])}"
    given = chance.choice(first)
    if chance.random() < 0.06:
        given = f"{given}-{chance.choice([name for name in first if '-' not in name])}"
    return Person(given, family, language, chance.getrandbits(32))


Messages = list[dict[str, Any]]
Write = Callable[[str], str]


def _user(text: str) -> Messages:
    return [{"role": "user", "content": text}]


def _letter(chance: random.Random, frames: Frames, write: Write) -> tuple[Messages, dict[str, Any]]:
    parts = [
        *frames.some(chance, "ask.letter"), *frames.some(chance, "letter.head"), *frames.some(chance, "letter.opening"),
        " ".join(frames.some(chance, "letter.body", 2, 5)), *frames.some(chance, "letter.close"),
    ]  # fmt: skip
    return _user(write("\n\n".join(parts))), {}


def _mail(chance: random.Random, frames: Frames, write: Write) -> tuple[Messages, dict[str, Any]]:
    parts = [
        *frames.some(chance, "mail.head"), " ".join(frames.some(chance, "mail.body", 1, 4)),
        *frames.some(chance, "mail.close"),
    ]  # fmt: skip
    mail = {"type": "text", "text": write("\n\n".join(parts))}
    asked = {"type": "text", "text": write(frames.some(chance, "ask.mail")[0])}
    return [{"role": "user", "content": [asked, mail]}], {}


def _chat(chance: random.Random, frames: Frames, write: Write) -> tuple[Messages, dict[str, Any]]:
    turns = frames.some(chance, "chat", 2, 4)
    messages: Messages = []
    if chance.random() < 0.5:
        messages.append({"role": "system", "content": write(frames.some(chance, "system")[0])})
    for number, turn in enumerate(turns):
        if number:
            messages.append({"role": "assistant", "content": write(frames.some(chance, "chat.answer")[0])})
        messages.append({"role": "user", "content": write(turn)})
    return messages, {"stream": True} if chance.random() < 0.3 else {}


def _form(chance: random.Random, frames: Frames, write: Write) -> tuple[Messages, dict[str, Any]]:
    lines = [*frames.some(chance, "ask.form"), "", *frames.some(chance, "form.field", 4, 9)]
    return _user(write("\n".join(lines))), {}


def _notes(chance: random.Random, frames: Frames, write: Write) -> tuple[Messages, dict[str, Any]]:
    lines = [*frames.some(chance, "ask.notes"), *(f"- {line}" for line in frames.some(chance, "notes", 3, 6))]
    return _user(write("\n".join(lines))), {}


def _tool(chance: random.Random, frames: Frames, write: Write) -> tuple[Messages, dict[str, Any]]:
    name, *fields = frames.some(chance, "tool")[0].split(" | ")
    arguments = {field.partition("=")[0]: write(field.partition("=")[2]) for field in fields}
    parameters = {"type": "object", "properties": {field: {"type": "string"} for field in arguments}}
    written = json.dumps(arguments, ensure_ascii=chance.random() < 0.5)
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": written}}
    result = write(frames.some(chance, "tool.result")[0])
    messages: Messages = [
        *_user(write(frames.some(chance, "tool.ask")[0])),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": result},
    ]
    return messages, {"tools": [{"type": "function", "function": {"name": name, "parameters": parameters}}]}


def _json(chance: random.Random, frames: Frames, write: Write) -> tuple[Messages, dict[str, Any]]:
    fields = [field.partition("=") for field in frames.some(chance, "json.field", 4, 8)]
    record = {name: write(value) for name, _, value in fields}
    indent = chance.choice([None, 2])
    text = json.dumps(record, ensure_ascii=False, indent=indent)
    return _user(write(frames.some(chance, "ask.data")[0]) + "\n\n" + text), {}


def _csv(chance: random.Random, frames: Frames, write: Write) -> tuple[Messages, dict[str, Any]]:
    columns = [column.partition("=") for column in frames.some(chance, "csv.column", 3, 6)]
    mark = chance.choice([";", ",", "\t"])
    rows = [mark.join(name for name, _, _ in columns)]
    rows += [mark.join(write(value.replace("{x.", f"{{{who}.")) for _, _, value in columns) for who in "abc"]
    return _user(write(frames.some(chance, "ask.data")[0]) + "\n\n" + "\n".join(rows)), {}


_FORMS: dict[str, Callable[[random.Random, Frames, Write], tuple[Messages, dict[str, Any]]]] = {
    "letter": _letter, "mail": _mail, "chat": _chat, "form": _form, "notes": _notes, "tool": _tool, "json": _json,
    "csv": _csv,
}  # fmt: skip
