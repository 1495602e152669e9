"""`appliance audit list` and `appliance audit export`: the same as /admin/audit, read from the files themselves."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from appliance import durable
from appliance.commands import OK, store_of, write
from appliance.console import waiting
from appliance.errors import AuditFailed, BadRequest, NotFound

if TYPE_CHECKING:
    from appliance.acts import Tell
    from appliance.audit.question import Question
    from appliance.audit.search import Page
    from appliance.config import Config

FILTERS = {
    "from": "from this day on, such as 2026-11-01",
    "to": "up to this day, which is included",
    "kind": "such as intent, outcome, refusal, act or incident",
    "subject": "a pseudonym: who asked, did something, or had it done to them",
    "key": "the id of a key that belongs to nobody; for a person's, give --user",
    "team": "a team",
    "role": "a role, such as admin; host: whoever commands this host",
    "model": "a model, by its public name",
    "use_case": "a use case",
    "request": "the x-request-id that an answer had",
    "intent": "what came of the intent of this number",
    "act": "such as keys.create or config.apply",
    "incident": "such as audit_unwritable",
    "outcome": "answered, refused, failed or caller_gone",
    "code": "the code of an error, such as budget_exceeded",
    "min_seq": "from this number on",
    "max_seq": "up to this number",
}
"""Each is an option of both commands, in a few words; more stands in docs/api.md."""


def list_(options: argparse.Namespace) -> int:
    """Show records, the newest first."""
    from appliance import config
    from appliance.acts import on_record
    from appliance.api.lookup import found
    from appliance.audit.search import Search

    loaded = config.load(options.config)
    search = Search(_folder(loaded))
    given = _given(options, loaded)
    question, asked = _asked(given, loaded)

    def work(tell: Tell) -> Page:
        page = search.all(question, options.limit, newest_first=options.order == "newest")
        tell(**found(given, asked, len(page.lines)))
        return page

    with waiting(lambda: "looking through the log; --from and --to make that shorter"):
        page = on_record(loaded, "read", work, filters=asked)
    if options.json:
        rest = json.dumps({"has_more": page.next is not None, "next": page.next})
        write(f'{{"object": "list", "data": [{b",".join(page.lines).decode()}], {rest[1:]}')
        return OK
    write("\n".join(_text(line) for line in page.lines) or _nothing(given))
    if page.next is not None:
        bound = f"--max-seq {page.next - 1}" if options.order == "newest" else f"--min-seq {page.next + 1}"
        write(f"there are more: {bound}, or a higher --limit")
    return OK


def export(options: argparse.Namespace) -> int:
    """Write records to a file, or to standard output."""
    from appliance import config
    from appliance.acts import on_record
    from appliance.api.lookup import found, shaped
    from appliance.audit.question import Question, seq_of
    from appliance.audit.search import Search

    loaded = config.load(options.config)
    search = Search(_folder(loaded))
    given = _given(options, loaded)
    question, asked = _asked(given, loaded)

    records = 0

    def work(tell: Tell) -> None:
        newest = search.page(Question(), 1).lines
        # up to what there is now: else it would go on for as long as the log is written to
        bounded = replace(question, most=min(question.most, (seq_of(newest[0]) or 0) if newest else 0))
        nonlocal records
        digest = hashlib.sha256()
        try:
            for count, part in shaped(search.steps(bounded), options.format):
                records += count
                digest.update(part)
                output.write(part)
            output.flush()
        finally:
            tell(**found(given, asked, records), sha256=digest.hexdigest())

    with _output(options.output) as output, waiting(lambda: f"exporting: {records:,} records"):
        on_record(loaded, "export", work, filters=asked, format=options.format)
    if options.output is not None:
        write(f"✓ {options.output} has {records:,} records")
    return OK


def _given(options: argparse.Namespace, config: Config) -> dict[str, str]:
    from appliance.audit import names
    from appliance.audit.subjects import pseudonyms

    given = {name: value for name in FILTERS if (value := getattr(options, name)) is not None}
    if options.user is not None:  # only here: whoever may read the key store can tell who somebody is anyway
        subject = pseudonyms(config.state / "audit-keys")(options.user)
        if subject is None:
            raise NotFound(f"nothing is on record of a user {options.user!r}, or they were erased")
        given["subject"] = subject
    for name, known in (("act", names.ACTS), ("incident", names.INCIDENTS)):
        if given.get(name, known[0]) not in known:
            raise BadRequest(f"--{name}: there is none of this name; known are {', '.join(known)}", param=name)
    if "key" in given:
        _require_nobodys(given["key"], config)
    return given


def _require_nobodys(key: str, config: Config) -> None:
    """A person's key is sealed with the name: asked for by itself it would look as if nobody ever used it."""
    with store_of(config) as store:
        known = store.keys()
        user = next((each.user for each in known if each.id == key), None)
    if user is not None:
        raise BadRequest(
            f"--key: {key} belongs to a person, so the log has it sealed under their name: ask for what they did with "
            f"--user {shlex.quote(user)}",
            param="key",
        )


def _nothing(given: dict[str, str]) -> str:
    hint = "; a key that was somebody's stands sealed in the log, and can't be asked for" if "key" in given else ""
    return f"no record is like that{hint}"


def _asked(given: dict[str, str], config: Config) -> tuple[Question, dict[str, str]]:
    """What is looked for, and how that goes on record."""
    from appliance.api.lookup import question_of, told, words
    from appliance.audit import subjects

    settings, hidden = config.settings, subjects.hidden(config.state / "audit-keys")
    question = question_of(given, settings.accounts.zone, hidden)
    return question, told(given, words(settings.accounts, settings.names), hidden)


def _folder(config: Config) -> Path:
    folder = config.state / "audit"
    if not folder.exists():
        raise AuditFailed(f"there is no log in {config.state} yet; the first start of the appliance makes it")
    return folder


@contextlib.contextmanager
def _output(file: Path | None) -> Iterator[BinaryIO]:
    """Where to write: as whoever runs this, and private, since it tells what people did."""
    if file is None:
        yield sys.stdout.buffer
        return
    try:
        with durable.replacing(file) as opened:
            yield opened
    except OSError as cause:
        raise AuditFailed(f"{file} can't be written: {cause.strerror}") from cause


def _text(line: bytes) -> str:
    """A record on one line, without what is sealed."""
    from appliance.audit import table

    seq, at, kind, *cells = table.row(line)
    told = (f"{name}={cell}" for name, cell in zip(table.COLUMNS[3:], cells, strict=True) if cell != "")
    return f"{seq:>8}  {at}  {kind:<9}  {' '.join(told)}"
