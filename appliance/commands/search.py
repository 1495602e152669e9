"""`appliance audit list` and `appliance audit export`: the same as /admin/audit, read from the files themselves."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from appliance.commands import OK, write
from appliance.errors import AuditFailed, NotFound

if TYPE_CHECKING:
    from appliance.acts import Tell
    from appliance.audit.search import Page
    from appliance.config import Config

FILTERS = (
    "from", "to", "kind", "subject", "key", "team", "role", "model", "use_case", "request", "intent", "act", "incident",
    "outcome", "code", "min_seq", "max_seq",
)  # fmt: skip
"""Each is an option of both commands; what they mean stands in docs/api.md."""


def list_(options: argparse.Namespace) -> int:
    """Show records, the newest first."""
    from appliance import config
    from appliance.acts import on_record
    from appliance.api.lookup import question_of, told
    from appliance.audit.search import Search

    loaded = config.load(options.config)
    given = _given(options, loaded)
    question = question_of(given, loaded.settings.accounts.zone)
    search = Search(_folder(loaded))

    def work(tell: Tell) -> Page:
        page = search.all(question, options.limit, newest_first=options.order == "newest")
        tell(records=len(page.lines))
        return page

    page = on_record(loaded, "read", work, filters=told(given))
    if options.json:
        rest = json.dumps({"has_more": page.next is not None, "next": page.next})
        write(f'{{"object": "list", "data": [{b",".join(page.lines).decode()}], {rest[1:]}')
        return OK
    write("\n".join(_text(line) for line in page.lines) or "no record is like that")
    if page.next is not None:
        bound = f"--max-seq {page.next - 1}" if options.order == "newest" else f"--min-seq {page.next + 1}"
        write(f"there are more: {bound}, or a higher --limit")
    return OK


def export(options: argparse.Namespace) -> int:
    """Write records to a file, or to standard output."""
    from appliance import config
    from appliance.acts import on_record
    from appliance.api.lookup import question_of, shaped, told
    from appliance.audit.question import Question, seq_of
    from appliance.audit.search import Search

    loaded = config.load(options.config)
    given = _given(options, loaded)
    question = question_of(given, loaded.settings.accounts.zone)
    search = Search(_folder(loaded))

    def work(tell: Tell) -> int:
        newest = search.page(Question(), 1).lines
        # up to what there is now: else it would go on for as long as the log is written to
        bounded = replace(question, most=min(question.most, (seq_of(newest[0]) or 0) if newest else 0))
        digest, records = hashlib.sha256(), 0
        try:
            for count, part in shaped(search.steps(bounded), options.format):
                records += count
                digest.update(part)
                output.write(part)
            output.flush()
        finally:
            tell(records=records, sha256=digest.hexdigest())
        return records

    with _output(options.output) as output:
        records = on_record(loaded, "export", work, filters=told(given), format=options.format)
    if options.output is not None:
        write(f"✓ {options.output} has {records:,} records")
    return OK


def _given(options: argparse.Namespace, config: Config) -> dict[str, str]:
    from appliance.audit.subjects import pseudonyms

    given = {name: value for name in FILTERS if (value := getattr(options, name)) is not None}
    if options.user is not None:  # only here: whoever may read the key store can tell who somebody is anyway
        subject = pseudonyms(config.state / "audit-keys")(options.user)
        if subject is None:
            raise NotFound(f"nothing is on record of a user {options.user!r}, or they were erased")
        given["subject"] = subject
    return given


def _folder(config: Config) -> Path:
    folder = config.state / "audit"
    if not folder.exists():
        raise AuditFailed(f"there is no log in {config.state} yet; the first start of the appliance makes it")
    return folder


@contextlib.contextmanager
def _output(file: Path | None) -> Iterator[BinaryIO]:
    """Where to write: opened as whoever runs this, and private, since it tells what people did."""
    if file is None:
        yield sys.stdout.buffer
        return
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as opened:
            yield opened
    except OSError as cause:
        raise AuditFailed(f"{file} can't be written: {cause.strerror}") from cause


def _text(line: bytes) -> str:
    """A record on one line, without what is sealed."""
    from appliance.audit import table

    seq, at, kind, *cells = table.row(line)
    told = (f"{name}={cell}" for name, cell in zip(table.COLUMNS[3:], cells, strict=True) if cell != "")
    return f"{seq:>8}  {at}  {kind:<9}  {' '.join(told)}"
