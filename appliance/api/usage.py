"""/v1/usage, /admin/usage and /admin/events: who used how much, and what is left."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Sequence
from datetime import date, timedelta
from typing import NoReturn

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from appliance.accounts.entries import Used
from appliance.accounts.statement import HOLDERS, By, Question, Row, csv_lines, figures, heading
from appliance.api.bodies.base import refuse
from appliance.api.exchange import House
from appliance.api.query import parameters, whole
from appliance.core import Caller

_MOST_DAYS = 3 * 366
_MOST_EVENTS = 1000
_DAY = re.compile(r"2[0-9]{3}-[0-9]{2}-[0-9]{2}")

SUMS_PARAMETERS = {
    "from": "First day, `2026-11-01`; if left out, the first of this month.",
    "to": "Last day, `2026-11-30`; if left out, today. At most three years after the first.",
    "by": f"What sums are kept apart by: {', '.join(f'`{each}`' for each in By)}; several with commas.",
    **{str(each): f"Only what has this {each}; empty: only what has none." for each in HOLDERS},
    "user": "Only this person's, in works-council mode by pseudonym; empty: only what is nobody's.",
    "key": "Only what has this key; in works-council mode, for a person's keys, the person's pseudonym.",
    "format": "`json` or `csv`.",
}
EVENTS_PARAMETERS = {"limit": f"How many at most, up to {_MOST_EVENTS}; if left out, 100."}


def add(app: FastAPI, house: House) -> None:
    """Add the routes. Who may take them stands in ROUTES."""

    async def own(request: Request) -> Response:
        parameters(request, ())
        caller: Caller = request.scope["caller"]
        return JSONResponse(await house.usage.own(caller))

    async def sums(request: Request) -> Response:
        given = parameters(request, SUMS_PARAMETERS)
        as_csv = _one_of("format", given.pop("format", "json"), ("json", "csv")) == "csv"
        question = question_of(given, house.usage.today())
        total = Used()
        pages = house.usage.pages(question, total)
        first = await anext(pages)  # before the head is sent, so that a store which is gone is a 503
        if not as_csv:
            body = _json(question, house.usage.zone, first, pages, total)
            return StreamingResponse(body, media_type="application/json")
        name = f"usage-{question.since}-{question.until}.csv"
        return StreamingResponse(
            _csv(question.columns, first, pages),
            media_type="text/csv; charset=utf-8; header=present",
            headers={"content-disposition": f'attachment; filename="{name}"'},
        )

    async def events(request: Request) -> Response:
        given = parameters(request, EVENTS_PARAMETERS)
        limit = whole("limit", given.get("limit", "100"), _MOST_EVENTS)
        return JSONResponse({"object": "list", "data": await house.usage.events(limit)})

    for path, answer, taken, tag, summary in (
        ("/v1/usage", own, {}, "Models", "What this key has used, and what is left to it"),
        ("/admin/usage", sums, SUMS_PARAMETERS, "Administration", "Who used how much"),
        ("/admin/events", events, EVENTS_PARAMETERS, "Administration", "Budgets that were used to 70, 90 or 100 %"),
    ):
        app.add_api_route(
            path, answer, tags=[tag], summary=summary, response_class=JSONResponse,
            openapi_extra={
                "security": [{"key": []}],
                "parameters": [
                    {"name": name, "in": "query", "description": about, "schema": {"type": "string"}}
                    for name, about in taken.items()
                ],
            },
        )  # fmt: skip


def question_of(given: dict[str, str], today: date) -> Question:
    """What the parameters of /admin/usage ask for. Raises `BadRequest`, which names the wrong one."""
    until = _day("to", given["to"]) if "to" in given else today
    since = _day("from", given["from"]) if "from" in given else today.replace(day=1)
    if until < since:
        _refuse("to", f"lies before `from`, {since}; without `from`, that is the first of this month")
    if until - since > timedelta(days=_MOST_DAYS):
        _refuse("to", "must lie within three years of `from`")
    words = given["by"].split(",") if "by" in given else []
    by = tuple(By(_one_of("by", word, tuple(By))) for word in words)
    if len(set(by)) < len(by):
        _refuse("by", "names something twice")
    return Question(since, until, by, {each: given[each] for each in HOLDERS if each in given})


def _day(name: str, text: str) -> date:
    day = None
    with contextlib.suppress(ValueError):
        day = date.fromisoformat(text) if _DAY.fullmatch(text) else None
    if day is None:
        _refuse(name, "must be a day such as 2026-11-30")
    return day


def _one_of(name: str, word: str, known: Sequence[str]) -> str:
    if word not in known:
        _refuse(name, f"must be {'one' if name == 'format' else 'some'} of {', '.join(known)}")
    return word


def _refuse(name: str, what: str) -> NoReturn:
    refuse(name, f"{name} {what}")


async def _csv(columns: Sequence[str], first: list[Row], rest: AsyncIterator[list[Row]]) -> AsyncIterator[str]:
    yield csv_lines([columns, *(tuple(row.values()) for row in first)])
    async for page in rest:
        yield csv_lines(tuple(row.values()) for row in page)


async def _json(
    question: Question, zone: str, first: list[Row], rest: AsyncIterator[list[Row]], total: Used
) -> AsyncIterator[str]:
    yield json.dumps(heading(question, zone))[:-1] + ', "data": ['
    separator = ""
    if first:
        yield json.dumps(first, ensure_ascii=False)[1:-1]
        separator = ", "
    async for page in rest:
        if page:
            yield separator + json.dumps(page, ensure_ascii=False)[1:-1]
            separator = ", "
    yield f'], "total": {json.dumps(figures(total))}}}'
