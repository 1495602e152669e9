"""What a record tells of an act or an incident, in words: never by which a reader could take one thing for another."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from appliance.compliance.blocks import Code, Inline, Strong, Text
from appliance.compliance.collect import Facts
from appliance.compliance.insight import Act
from appliance.compliance.words import Words

_LONGEST = 500
"""Characters of one particular; as long as a reason may be."""
_MOST = 12
"""Particulars of one record, and parts of one list."""
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_DAY = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])")
_QUOTED = frozenset({"reason", "why", "error"})
"""In words of whoever wrote them: a person, or a program."""
_FIRST, _LAST = ("from", "since", "oldest", "to", "until", "newest"), ("why", "error", "reason")
_ELSEWHERE = frozenset({"diff", "diff_bytes", "sections", "phase", "hold.at", "hold.by", "hold.subject", "subject"})
"""Stand in the report in a place of their own, or say nothing that isn't there."""
_NOTHING = frozenset({"failed", "held", "refused"})
"""Say something only where they aren't zero."""


def told(act: Act, words: Words) -> Text:
    """What else an act tells: whom it is about, then the rest."""
    about = act.target or str(act.told.get("subject") or "") or _held(act.told)
    first: list[Inline] = [words("acts.target"), " ", Code(_cut(about))] if about else []
    rest = particulars(act.told, words)
    return (*first, *(("; ", *rest) if first and rest else rest)) or "–"


def _held(about: Mapping[str, Any]) -> str:
    hold = about.get("hold")
    return str(hold.get("subject") or "") if isinstance(hold, Mapping) else ""


def particulars(about: Mapping[str, Any], words: Words) -> tuple[Inline, ...]:
    """The fields of a record, named in words where there are some; what somebody wrote stands last, and is quoted."""
    fields = [(name, value) for name, value in _flat(about) if name not in _ELSEWHERE and value not in (None, "", [])]
    fields = [(name, value) for name, value in fields if not (value == 0 and _leaf(name) in _NOTHING)]
    fields.sort(key=lambda field: _place(_leaf(field[0])))
    parts: list[Inline] = []
    for name, value in fields[:_MOST]:
        label = words.known(f"told.{name}") or words.known(f"told.{_leaf(name)}")
        parts += ["; "] if parts else []
        parts += [label or Code(name), ": ", *_value(name, value, words)]
    if len(fields) > _MOST:
        parts += ["; ", words("told.more", count=len(fields) - _MOST)]
    return tuple(parts)


def quoted(text: str, words: Words) -> str:
    """What somebody wrote, on one line, so that nothing in it ends the quotation."""
    return words("quoted", text=_cut(" ".join(text.split()).translate(_MARKS)))


_MARKS = str.maketrans(dict.fromkeys('"„“”»«', "'"))


def _value(name: str, value: Any, words: Words) -> Iterator[Inline]:
    leaf = _leaf(name)
    if isinstance(value, Sequence) and not isinstance(value, str):
        for index, each in enumerate(value[:_MOST]):
            yield from (", ",) if index else ()
            if isinstance(each, Mapping):
                yield from particulars(each, words)
            else:
                yield from _value(name, each, words)
        if len(value) > _MOST:
            yield f", {words('told.more', count=len(value) - _MOST)}"
        return
    text = str(value)
    if isinstance(value, bool):
        yield words("yes" if value else "no")
    elif isinstance(value, int):
        yield words.number(value) if leaf not in ("status", "seq", "checkpoint", "segment") else text
    elif known := words.known(f"{leaf}.{text}"):
        yield known
    elif leaf in _QUOTED:
        yield quoted(text, words)
    elif _MOMENT.fullmatch(text):
        yield words.moment(text)
    elif _DAY.fullmatch(text):
        yield words.day(f"{text}T12:00:00Z")
    else:
        yield Code(_cut(text))


def _flat(told: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in told.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _place(leaf: str) -> int:
    return _FIRST.index(leaf) - len(_FIRST) if leaf in _FIRST else _LAST.index(leaf) + 1 if leaf in _LAST else 0


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def act_name(name: str, words: Words) -> Text:
    """What was done, in words where there are some."""
    return words.known(f"act.{name}") or Code(name)


def role(name: str, words: Words) -> str:
    """A role, in words where there are some."""
    return words.known(f"role.{name}") or name


def who(act: Act, facts: Facts, words: Words) -> Text:
    """Who did it: the role, and the name of who administers or audits; of anybody else the pseudonym."""
    its = role(act.role, words) if act.role else "–"
    name = facts.names.get(act.by) if act.by in facts.log.administrators else None
    if act.key:
        return (its, " ", Code(act.key))
    if name is not None:
        return f"{its}: {name.removeprefix('host:')}"
    return (its, " ", Code(act.by)) if act.by else its


def ended(act: Act, words: Words) -> Text:
    """How it ended."""
    text = words.known(f"end.{act.end}") or act.end
    return text if act.end == "done" else Strong(text)
