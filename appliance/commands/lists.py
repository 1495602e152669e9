"""`appliance lists ...`: the site's own names, from files and standard input only: arguments show in process lists."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.commands import OK, write
from appliance.console import waiting
from appliance.errors import BadRequest

if TYPE_CHECKING:
    from appliance.acts import Tell
    from appliance.config import Config
    from appliance.privacy.site.entry import SiteEntry
    from appliance.privacy.site.lists import Lists

    Work = Callable[[list[SiteEntry]], Sequence[SiteEntry]]

_NEXT_START = "the appliance looks for them from its next start on"


def add(options: argparse.Namespace) -> int:
    """Add names to a list, one to a line."""
    from appliance.privacy.kinds import Kind
    from appliance.privacy.site import importing

    entries = importing.lines(importing.text_of(_content(options.file)), Kind(options.list))
    return _change(options, "add", lambda known: _with(known, entries))


def import_(options: argparse.Namespace) -> int:
    """Add the names of a file, or put them in the place of a list."""
    from appliance.privacy.kinds import Kind
    from appliance.privacy.site import importing

    kind = Kind(options.list)
    with waiting(lambda: "reading the file"):
        text = importing.text_of(_content(options.file))
        is_table = options.column or options.file.suffix.lower() in (".csv", ".tsv")
        entries = importing.table(text, kind, options.column) if is_table else importing.lines(text, kind)
    if not entries:
        raise BadRequest(f"{options.file} holds no names; nothing was changed")
    return _change(options, "import", lambda known: entries if options.replace else _with(known, entries))


def remove(options: argparse.Namespace) -> int:
    """Take names off a list, one to a line."""
    from appliance.privacy.kinds import Kind
    from appliance.privacy.site import importing

    gone = {entry.name for entry in importing.lines(importing.text_of(_content(options.file)), Kind(options.list))}
    return _change(options, "remove", lambda known: [entry for entry in known if entry.name not in gone])


def show(options: argparse.Namespace) -> int:
    """Show how long the lists are; or, on record, what stands on them."""
    from appliance import config
    from appliance.acts import on_record
    from appliance.privacy.site.entry import LISTS

    loaded = config.load(options.config)
    wanted = [kind for kind in LISTS if options.list in (None, kind.value)]
    with _as_owner(loaded):
        found = {kind.value: _lists(loaded).read(kind) for kind in wanted}
    if not options.names:
        counts = {name: len(entries) for name, entries in found.items()}
        write(
            json.dumps(counts) if options.json else "\n".join(f"{name:<13}{count:>8}" for name, count in counts.items())
        )
        return OK
    told: dict[str, Any] = {name: len(entries) for name, entries in found.items()}
    on_record(loaded, "lists.show", lambda _: None, **told)
    if options.json:
        write(json.dumps({name: [[each.name, *each.aliases] for each in entries] for name, entries in found.items()}))
    else:
        write(
            "\n".join(
                f"{name}: {'; '.join((each.name, *each.aliases))}" for name, all_ in found.items() for each in all_
            )
        )
    return OK


def _with(known: list[SiteEntry], entries: Sequence[SiteEntry]) -> list[SiteEntry]:
    """All of both; of one that is in both, the new one in its old place."""
    return list(({entry.name: entry for entry in known} | {entry.name: entry for entry in entries}).values())


def _change(options: argparse.Namespace, how: str, work: Work) -> int:
    from appliance import config
    from appliance.acts import on_record
    from appliance.privacy.kinds import Kind

    loaded, kind = config.load(options.config), Kind(options.list)
    told: dict[str, Any] = {}

    def counted(known: list[SiteEntry]) -> Sequence[SiteEntry]:
        new = work(known)
        before, after = set(known), set(new)
        told.update(added=len(after - before), removed=len(before - after), entries=len(new))
        return new

    def change(tell: Tell) -> None:
        with waiting(lambda: "encrypting the list"), _as_owner(loaded):
            _lists(loaded).change(kind, counted)
        tell(**told)

    on_record(loaded, "lists.change", change, list=kind.value, how=how)
    write(
        json.dumps({"list": kind, **told})
        if options.json
        else f"✓ {kind}: {told['added']} added, {told['removed']} removed, {told['entries']} in all; {_NEXT_START}"
    )
    return OK


def _content(file: Path | None) -> bytes:
    """Of the file, or of standard input. Raises `BadRequest`."""
    if file is None:
        if sys.stdin.isatty():
            sys.stderr.write("  one name to a line; Ctrl-D ends\n")
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as cause:
        raise BadRequest(f"{file} can't be read: {cause.strerror}") from cause


def _lists(config: Config) -> Lists:
    from appliance.privacy.site.lists import Lists

    return Lists(config.lists)


def _as_owner(config: Config) -> AbstractContextManager[None]:
    from contextlib import nullcontext

    from appliance.egress.owner import as_owner

    return as_owner(config.state) if config.state.exists() else nullcontext()
