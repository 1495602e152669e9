"""Writes the pages that are derived from the code, so that they can't drift from it.

python -m appliance.reference           write configs/appliance.schema.json and docs/{configuration,api}.md
python -m appliance.reference --check   exit with 1 if one of them is not current
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from appliance.accounts.roles import PERMISSIONS
from appliance.api import admin, audit, feedback, lookup, policy, usage
from appliance.api.routes import MODEL_ROUTES, ROUTES
from appliance.audit import table
from appliance.config import SecretReference, Settings
from appliance.weights.card import Card

_CONFIG_INTRO = """\
# Configuration

<!-- Written by `make reference` from appliance/config.py and appliance/weights/card.py. Don't edit. -->

- **Change something:** edit `configs/appliance.yaml`, see what that changes with `appliance apply --dry-run`, then
  `appliance apply`. `appliance rollback` takes it back.
- **Serve another model:** name another card under `models:`; `appliance models list` shows them. See
  [models.md](models.md).
- **Run on other hardware:** copy the file and start with `make serve CONFIG=configs/mine.yaml`.

A key that is not on this page is refused, with its line and the key it resembles most. Relative paths start at
the config file's folder. Secrets are references: `env.NAME` or `file:/path`. Editors that know YAML schemas
complete and check the file by `configs/appliance.schema.json`.

`listen`, `egress`, `privacy`, `state`, endpoints and a few more change only with a restart, as
`appliance apply --dry-run` tells; all else changes with `appliance apply`.
"""

_API_INTRO = """\
# API

<!-- Written by `make reference` from appliance/api. Don't edit. -->

Point an official SDK at the appliance and use it as ever:

```python
from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="sk-appliance-...")

from anthropic import Anthropic

client = Anthropic(base_url="http://127.0.0.1:8000", api_key="sk-appliance-...")
```

Only the paths below exist. A field is passed on, or *ignored* (documented by OpenAI or Anthropic, but without
meaning here: accepted and dropped), or refused by name. `x-request-id` is taken over from the request, or made,
and comes back with every answer. Errors have OpenAI's envelope,
under `/v1/messages` Anthropic's.
"""

_ACCESS_INTRO = """\
A key goes in `Authorization: Bearer` or in `x-api-key`: one of them, once. Without one the answer is 401
`missing_api_key`; with any that doesn't open, whatever the reason, 401 `invalid_api_key`. What a key's role may not do
is 403 `not_allowed`, and so is an `X-Use-Case` that the key may not name. The log has the reasons.

Requests to models may say in headers what they are for and how they are to be kept: `X-Use-Case`, one of the key's;
`X-Data-Class`, `public`, `internal`, `confidential` or `personal`, which can raise the class that config, key and use
case give and never lower it; `X-Route: local` for an answer from the house or none. Any other value of the last two is
400 `invalid_value`, and so is one that is sent twice.
"""

_POLICY_INTRO = """\
## What may leave

POST `/admin/policy/explain` tells what would happen to a text or a request that the house can't answer, and why.
Nothing is sent, and nothing of it is kept; that somebody asked is on record. The answer has `leaves`, `data_class`,
`held` and `why` (null where it may leave), `rule`, `purpose`, `providers`, `found` (each kind, and how many), `checks`
(`check`, and `passed`: null for what was not looked at any more), and `texts`: for each text of the request its `path`,
how it would be `masked`, and `finds` (`start`, `end`, `kind`, `raises_to`, `score`, `source`). Where nothing may leave,
it is 409 `nothing_leaves`.
"""

_FEEDBACK_INTRO = """\
## POST /v1/feedback

Says whether an answer was good; 204 when it is noted. It counts for the version that gave the answer, in memory, and is
kept nowhere: neither with the request nor with who asked. Of a `request_id` that is not one's own, or older than a day,
it is 404 `unknown_request`.
"""

_KEYS_INTRO = """\
## Keys

`admin` makes and changes keys of `user` and `power_user`, `super_admin` those of every role; the others are neither
listed nor changed. Answers have `id`, `name`, `state` (`active`, `expired`, `revoked`), `user`, `team`, `role`,
`use_cases`, `service_class`, `data_class`, `allowance`, `created`, `created_by`, `expires`, `revoked` and
`previous_until`; `issued`, when what opens was made or rotated, and `issued_by`: the ids of the keys whose holders may
know it, since they made or rotated it, or the key that this was done with; empty where it was done on the host. Only
after POST `/admin/keys` and `rotate` they have the `key` itself: it is shown once.

A revoked key is refused within a second by every appliance on the store; an answer that has begun comes to its end.
Nothing keeps a `super_admin` from revoking the last key of that role: the way back is `appliance keys create --role
super_admin` on the host.

GET `/admin/keys` takes `user`, `team`, `limit` (up to 1000, else 100) and `after` (the `last_id` of the page before).
"""

_USAGE_INTRO = """\
## Usage

GET `/v1/usage` tells a key its own: `key` and `user` with the sums of `today` and of this `month` (`requests`,
`prompt_tokens`, `completion_tokens`, `euros` as text with nine decimals, and `unsettled`: requests that are booked at
their reservation, since the appliance ended before they did); `budgets`, one for each budget that holds for it
(`holder`, `name`, `span`, `unit`, `limit`, `used`, `reserved`, `left`, `left_percent`, `resets_at`, `at_limit`,
`step_down_to`; of a team's and a use case's no amounts); and `limits` (`holder`, `name`, `unit`, `limit`). In
works-council mode a person's API key is told only what was used with itself, from the day after it was rotated on:
`user` has only `name`, and the person's budgets no amounts. Tokens of the identity provider are told all.

GET `/admin/usage` has a row of the same sums for all, in `data`, and their `total`; GET `/admin/events` tells of
budgets that were used to 70, 90 or 100 %, newest first (`at`, `holder`, `name`, `span`, `start`, `unit`, `percent`).

"""

_AUDIT_INTRO = """\
## Audit

[audit.md](audit.md#look-something-up) tells how to look something up. GET `/admin/audit` answers with `data`, records
as they stand in the log, `has_more`, and `next`: what to give as `after` for the next page. A page is given out after
so much of the log, too, so it may hold few records, or none, and have a `next`. GET `/admin/audit/export` answers with
a file: the lines of the log as they are, or a table. GET `/admin/audit/status` has `records`, `head` (the hash of the
newest), `checkpoint`, `fingerprint`, `well`, `failures`, `waiting`, `unsigned_seconds`, `retention`, `holds` (null
while they are not known), `holds_known` and `works_council`. Reads and exports are put on record before they are
answered. What is sealed stays sealed.

A reveal has `id`, `subject`, `reason`, `state` (`asked`, `approved`), `asked`, `asked_by`, `approved`, `approved_by`,
`expires`; once it is approved, GET `/admin/audit/reveals/{id}` has the `name` for the two. Who they are is told by
`role` and pseudonym.

"""


def schema() -> str:
    """The JSON schema of the config."""
    described = Settings.model_json_schema()
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "configs/appliance.yaml"}
    return json.dumps(head | {key: value for key, value in described.items() if key != "title"}, indent=2) + "\n"


def configuration() -> str:
    """docs/configuration.md."""
    sections = [_CONFIG_INTRO, *_sections(Settings, "configs/appliance.yaml", set())]
    sections += [
        "## Model cards\n\nA card, `models/<name>/card.yaml`, says what a model is. The folder's name is the model's.\n"
    ]
    sections += _sections(Card, "models/NAME/card.yaml", set())
    return "\n".join(sections)


def api() -> str:
    """docs/api.md."""
    lines = [_API_INTRO, "## Who may call what", "", _ACCESS_INTRO, "| method | path | permission |", "|---|---|---|"]
    lines += [f"| {method} | `{path}` | {access} |" for (method, path), access in ROUTES.items()]
    lines += ["", roles().rstrip()]
    for route in MODEL_ROUTES:
        fields = route.body.model_fields
        passed = [name for name, field in fields.items() if not field.exclude]
        lines += [
            "",
            f"## POST {route.operation.path}",
            "",
            f"Passed on: {', '.join(f'`{name}`' for name in passed)}.",
            "",
        ]
        dropped = {name: field for name, field in fields.items() if field.exclude}
        if dropped:
            lines += ["| accepted, not passed on | why |", "|---|---|"]
            lines += [f"| `{name}` | {field.description} |" for name, field in sorted(dropped.items())]
    lines += ["", _FEEDBACK_INTRO.rstrip()]
    for body in feedback.BODIES:
        lines += ["", *_fields(body)]
    lines += ["", _KEYS_INTRO.rstrip()]
    for body in admin.BODIES:
        lines += ["", f"### {(body.__doc__ or '').rstrip('.')}", "", *_fields(body, "configuration.md")]
    lines += ["", _USAGE_INTRO.rstrip(), "", "| parameter of `/admin/usage` | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {about} |" for name, about in usage.SUMS_PARAMETERS.items()]
    lines += ["", "| parameter of `/admin/events` | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {about} |" for name, about in usage.EVENTS_PARAMETERS.items()]
    lines += ["", _AUDIT_INTRO.rstrip(), "", "| parameter of `/admin/audit` | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {about} |" for name, about in lookup.LIST_PARAMETERS.items()]
    columns = ", ".join(f"`{name}`" for name in table.COLUMNS)
    lines += [
        "",
        "`/admin/audit/export` takes all but the last three of them, and:",
        "",
        "| parameter | meaning |",
        "|---|---|",
    ]
    lines += [f"| `format` | {lookup.EXPORT_PARAMETERS['format']} |", "", f"Columns of the CSV: {columns}."]
    for body in audit.BODIES:
        lines += ["", f"### {(body.__doc__ or '').rstrip('.')}", "", *_fields(body)]
    lines += ["", _POLICY_INTRO.rstrip()]
    for body in policy.BODIES:
        lines += ["", f"### {(body.__doc__ or '').rstrip('.')}", "", *_fields(body)]
    return "\n".join(lines) + "\n"


def roles() -> str:
    """The table of roles, as docs/api.md and docs/accounts.md hold it."""
    rows = [f"| `{role}` | {', '.join(sorted(may)) or 'nothing'} |" for role, may in PERMISSIONS.items()]
    return "\n".join(["| role | may |", "|---|---|", *rows]) + "\n"


def _fields(kind: type[BaseModel], page: str = "") -> list[str]:
    """A table of settings; those that are sections themselves stand on `page`."""
    rows = [
        f"| `{field.alias or name}` | {_type(field.annotation, page)} | {_default(field)} | {field.description} |"
        for name, field in kind.model_fields.items()
    ]
    return ["| setting | type | default | meaning |", "|---|---|---|---|", *rows]


def _sections(kind: type[BaseModel], title: str, seen: set[type[BaseModel]]) -> Iterator[str]:
    """A table for `kind`, then one for each model inside it, once."""
    seen.add(kind)
    about = (kind.__doc__ or "").strip()
    yield "\n".join([f"### {title}", "", about, "", *_fields(kind), ""])
    for field in kind.model_fields.values():
        for inner in _models(field.annotation):
            if inner not in seen:
                yield from _sections(inner, inner.__name__, seen)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _type(annotation: Any, page: str = "") -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0], page)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        return " or ".join(_type(each, page) for each in inner if each is not NoneType)
    if origin is not None and issubclass(origin, tuple | list):
        return f"list of {_type(inner[0], page)}"
    if origin is not None:
        return f"mapping of {_type(inner[0], page)} to {_type(inner[1], page)}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}]({page}#{annotation.__name__.lower()})"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}
    return names.get(annotation, "secret reference" if annotation is SecretReference else "text")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    if field.default is PydanticUndefined or isinstance(field.default, BaseModel):
        return "see there"
    if field.default in (None, {}, (), [], ""):
        return "none"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def main(arguments: list[str]) -> int:
    """Write the pages, or check them."""
    root = Path(__file__).parents[1]
    pages = {
        root / "configs" / "appliance.schema.json": schema(),
        root / "docs" / "configuration.md": configuration(),
        root / "docs" / "api.md": api(),
    }
    stale = [page for page, text in pages.items() if not page.exists() or page.read_text() != text]
    for page in stale:
        if "--check" in arguments:
            print(f"{page.relative_to(root)} is not current; run `make reference`", file=sys.stderr)  # noqa: T201 - the terminal is meant
        else:
            page.write_text(pages[page])
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
