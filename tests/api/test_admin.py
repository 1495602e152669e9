"""/admin/keys: made, listed, rotated and revoked from afar, each thing checked, nothing shown twice."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from appliance.core import DataClass, Role
from appliance.errors import BooksUnavailable
from tests.fakes.office import Office, office


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Office]:
    with office(tmp_path) as made:
        yield made


WHOLE: dict[str, Any] = {
    "name": "mail sorter", "user": "Änne O'Hara", "team": "sales", "role": "power_user", "use_cases": ["night", "mail"],
    "service_class": "batch", "data_class": "confidential",
    "allowance": {"tokens_per_day": 500, "euros_per_month": 12.5}, "expires_in_days": 90,
}  # fmt: skip


async def test_a_key_is_made_shown_once_and_opens(room: Office) -> None:
    admin, credential = await room.key(Role.ADMIN)
    before = time.time()
    async with room.client(credential) as client:
        made = await client.post("/admin/keys", json=WHOLE)
        listed = await client.get("/admin/keys")
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    shown = made.json()
    key = shown.pop("key")
    assert shown == {
        "id": shown["id"], "object": "key", "state": "active", "name": "mail sorter", "user": "Änne O'Hara",
        "team": "sales", "role": "power_user", "use_cases": ["mail", "night"], "service_class": "batch",
        "data_class": "confidential",
        "allowance": {"tokens_per_day": 500, "euros_per_month": 12.5, "at_limit": "reject"},
        "created": shown["created"], "created_by": admin.id, "expires": shown["expires"], "revoked": None,
        "previous_until": None, "issued": shown["created"], "issued_by": [admin.id],
    }  # fmt: skip
    ends = datetime.fromisoformat(shown["expires"]).timestamp()
    assert 90 * 86_400 - 2 <= ends - before <= 90 * 86_400 + 60
    assert listed.json()["data"] == [shown]
    for record in room.registry.select():
        assert record.digest.hex() not in listed.text
        assert key not in listed.text
    async with room.client(key, **{"x-use-case": "mail"}) as client:
        chat = {"model": "chat", "messages": [{"role": "user", "content": "x"}]}
        assert (await client.post("/v1/chat/completions", json=chat)).status_code == 200
    (asked,) = room.pipeline.ran
    assert (asked.caller.user, asked.data_class) == ("Änne O'Hara", DataClass.CONFIDENTIAL)


@pytest.mark.parametrize("name", ["Änne  Groß", "A\u0308nne Groß", " Änne Groß "])
async def test_one_name_is_one_user_however_it_is_written(room: Office, name: str) -> None:
    _, credential = await room.key(Role.ADMIN)
    async with room.client(credential) as client:
        shown = (await client.post("/admin/keys", json={"user": name, "team": name})).json()
    assert (shown["user"], shown["team"]) == ("Änne Groß", "Änne Groß")


async def test_a_key_that_names_nothing_is_a_users_for_good(room: Office) -> None:
    _, credential = await room.key(Role.ADMIN)
    async with room.client(credential) as client:
        shown = (await client.post("/admin/keys", json={})).json()
    assert (shown["role"], shown["user"], shown["expires"], shown["allowance"]) == ("user", None, None, None)


async def test_an_end_can_be_named_as_a_time(room: Office) -> None:
    _, credential = await room.key(Role.ADMIN)
    soon = datetime.fromtimestamp(time.time() + 3600).astimezone().isoformat()
    async with room.client(credential) as client:
        shown = (await client.post("/admin/keys", json={"expires": soon})).json()
        assert abs(datetime.fromisoformat(shown["expires"]).timestamp() - time.time() - 3600) < 60
        assert shown["expires"].endswith("Z")


REFUSED: list[tuple[object, str | None]] = [
    ({"nmae": "x"}, "nmae"),
    ({"key": "sk-mine"}, "key"),
    ({"id": "key_0"}, "id"),
    ({"name": 7}, "name"),
    ({"name": "a\nb"}, "name"),
    ({"name": "x" * 129}, "name"),
    ({"name": "\x9b31m"}, "name"),  # begins a command to a terminal, as an escape does
    ({"name": "\u202egnp.exe"}, "name"),  # shown backwards
    ({"user": "anna\u2028key_00ff  active"}, "user"),  # shown as two lines
    ({"user": ""}, "user"),
    ({"user": "a/b"}, "user"),
    ({"user": "  "}, "user"),
    ({"user": "boss\ufe0f"}, "user"),
    ({"user": "p_0123456789abcdef01234567"}, "user"),
    ({"team": "a:b"}, "team"),
    ({"team": "x" * 129}, "team"),
    ({"role": "root"}, "role"),
    ({"role": ["admin"]}, "role"),
    ({"use_cases": "mail"}, "use_cases"),
    ({"use_cases": ["mail", "Night!"]}, "use_cases[1]"),
    ({"use_cases": ["gone"]}, "use_cases"),
    ({"service_class": "urgent"}, "service_class"),
    ({"data_class": "secret"}, "data_class"),
    ({"data_class": ["public"]}, "data_class"),
    ({"allowance": {"tokens_per_day": 0}}, "allowance.tokens_per_day"),
    ({"allowance": {"tokens_per_day": "5"}}, "allowance.tokens_per_day"),
    ({"allowance": {"tokens": 5}}, "allowance.tokens"),
    ({"allowance": {"requests_per_minute": 10**400}}, "allowance.requests_per_minute"),
    ({"allowance": {"euros_per_month": 1e305}}, "allowance.euros_per_month"),
    ({"allowance": {"at_limit": "step_down"}}, "allowance"),
    ({"allowance": {"at_limit": "step_down", "step_down_to": "gone"}}, "allowance.step_down_to"),
    ({"expires_in_days": 0}, "expires_in_days"),
    ({"expires_in_days": 1e308}, "expires_in_days"),
    ({"expires": "tomorrow"}, "expires"),
    ({"expires": "2999-01-01T00:00:00"}, "expires"),
    ({"expires": "2999-01-01T00:00:00Z"}, "expires"),
    ({"expires": "2020-01-01T00:00:00Z"}, "expires"),
    ({"expires": "9999-12-31T23:59:59-23:00"}, "expires"),
    ({"expires": "2027-01-01T00:00:00Z", "expires_in_days": 1}, None),
    ([], None),
    ("x", None),
]


@pytest.mark.parametrize(("body", "param"), REFUSED, ids=lambda value: json.dumps(value)[:60])
async def test_a_wrong_field_is_named_and_nothing_is_made(room: Office, body: object, param: str | None) -> None:
    _, credential = await room.key(Role.SUPER_ADMIN)
    async with room.client(credential) as client:
        answer = await client.post("/admin/keys", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert len(room.registry.select()) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b'{"name": "\\ud800"}',
        b"[" * 9999,
        b'{"user":"' + b"x" * 70_000,
        b'{"allowance": {"euros_per_day": 1e999}}',
    ],
)
async def test_what_is_no_sensible_body_is_refused(room: Office, content: bytes) -> None:
    _, credential = await room.key(Role.SUPER_ADMIN)
    async with room.client(credential) as client:
        answer = await client.post("/admin/keys", content=content)
    assert answer.status_code in (400, 413)
    assert len(room.registry.select()) == 1


async def test_rotation_shows_the_new_key_once_and_both_open_for_the_overlap(room: Office) -> None:
    _, credential = await room.key(Role.ADMIN)
    record, old = await room.key(user="anna")
    async with room.client(credential) as client:
        answer = await client.post(f"/admin/keys/{record.id}/rotate")
        shown = answer.json()
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        assert (shown["id"], shown["user"]) == (record.id, "anna")
        assert abs(datetime.fromisoformat(shown["previous_until"]).timestamp() - time.time() - 86_400) < 60
        for key in (old, shown["key"]):
            async with room.client(key) as caller:
                assert (await caller.get("/v1/models")).status_code == 200
        at_once = await client.post(f"/admin/keys/{record.id}/rotate", json={"overlap_hours": 0, "expires_in_days": 1})
        assert at_once.json()["expires"]
        for key, status in ((old, 401), (shown["key"], 401), (at_once.json()["key"], 200)):
            async with room.client(key) as caller:
                assert (await caller.get("/v1/models")).status_code == status
        for wrong in ({"overlap_hours": -1}, {"overlap_hours": 1e9}, {"overlap": 1}, {"expires_in_days": 0}):
            refused = await client.post(f"/admin/keys/{record.id}/rotate", json=wrong)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, next(iter(wrong)))


async def test_a_revoked_key_is_refused_from_the_answer_on_and_can_not_be_rotated(room: Office) -> None:
    _, credential = await room.key(Role.ADMIN)
    record, key = await room.key()
    async with room.client(credential) as client, room.client(key) as caller:
        assert (await caller.get("/v1/models")).status_code == 200
        answer = await client.post(f"/admin/keys/{record.id}/revoke")
        assert (answer.status_code, answer.json()["state"]) == (200, "revoked")
        assert (await caller.get("/v1/models")).status_code == 401
        again = await client.post(f"/admin/keys/{record.id}/revoke")
        assert again.json() == answer.json()
        rotated = await client.post(f"/admin/keys/{record.id}/rotate")
        assert (rotated.status_code, rotated.json()["error"]["code"]) == (409, "key_not_active")


async def test_an_admin_neither_sees_nor_touches_nor_makes_keys_of_higher_roles(room: Office) -> None:
    _, credential = await room.key(Role.ADMIN)
    others = {role: (await room.key(role))[0] for role in (Role.ADMIN, Role.SUPER_ADMIN, Role.AUDITOR)}
    async with room.client(credential) as client:
        assert (await client.get("/admin/keys")).json()["data"] == []
        refused = [
            answer
            for role, record in others.items()
            for answer in (
                await client.post("/admin/keys", json={"role": role}),
                await client.post(f"/admin/keys/{record.id}/rotate"),
                await client.post(f"/admin/keys/{record.id}/revoke"),
            )
        ]
    assert {(answer.status_code, answer.content) for answer in refused} == {(403, refused[0].content)}
    assert {record.state(time.time()) for record in room.registry.select()} == {"active"}
    assert len(room.registry.select()) == 4


async def test_a_super_admin_grants_every_role(room: Office) -> None:
    _, credential = await room.key(Role.SUPER_ADMIN)
    async with room.client(credential) as client:
        for role in Role:
            made = (await client.post("/admin/keys", json={"role": role})).json()
            assert made["role"] == role
            assert (await client.post(f"/admin/keys/{made['id']}/rotate")).status_code == 200
            assert (await client.post(f"/admin/keys/{made['id']}/revoke")).status_code == 200
        assert (await client.get("/admin/keys")).json()["data"][0]["role"] == "super_admin"


async def test_an_unknown_id_is_a_404(room: Office) -> None:
    _, credential = await room.key(Role.SUPER_ADMIN)
    async with room.client(credential) as client:
        for what in ("rotate", "revoke"):
            answer = await client.post(f"/admin/keys/key_00ff/{what}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_key")
            assert "key_00ff" in answer.text
            assert credential not in (await client.post(f"/admin/keys/{credential}/{what}")).text


async def test_lists_are_filtered_and_come_in_pages(room: Office) -> None:
    _, credential = await room.key(Role.ADMIN)
    made = [(await room.key(user=f"user {number % 2}", team="a" if number < 3 else None))[0].id for number in range(7)]
    async with room.client(credential) as client:

        async def listed(**params: Any) -> dict[str, Any]:
            answer = await client.get("/admin/keys", params=params)
            assert answer.status_code == 200, answer.text
            page: dict[str, Any] = answer.json()
            return page

        whole = await listed()
        assert (whole["object"], whole["has_more"]) == ("list", False)
        ids = [each["id"] for each in whole["data"]]
        assert set(ids) == set(made)
        assert (whole["first_id"], whole["last_id"]) == (ids[0], ids[-1])
        seen: list[str] = []
        page = await listed(limit=3)
        while True:
            seen += [each["id"] for each in page["data"]]
            if not page["has_more"]:
                break
            page = await listed(limit=3, after=page["last_id"])
        assert seen == ids
        assert {each["id"] for each in (await listed(user="user 1"))["data"]} == set(made[1::2])
        assert {each["id"] for each in (await listed(user="user 1", team="a"))["data"]} == {made[1]}
        assert (await listed(user="nobody"))["data"] == []


@pytest.mark.parametrize(
    ("query", "param"),
    [("usr=anna", "usr"), ("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit"), ("limit=", "limit"),
     ("limit=-1", "limit"), ("limit=٣", "limit"), ("user=a&user=b", "user"), ("after=key_0", "after")],
)  # fmt: skip
async def test_a_wrong_parameter_is_named_rather_than_everything_shown(room: Office, query: str, param: str) -> None:
    _, credential = await room.key(Role.ADMIN)
    async with room.client(credential) as client:
        answer = await client.get(f"/admin/keys?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_a_store_that_is_gone_is_a_503_that_says_nothing_of_this_host(room: Office) -> None:
    _, credential = await room.key(Role.SUPER_ADMIN)

    def gone(*_: object) -> Any:
        raise BooksUnavailable("/srv/state/accounts.db: disk full")

    room.store.add_key = room.store.keys = gone  # type: ignore[method-assign]
    async with room.client(credential) as client:
        for answer in (await client.post("/admin/keys", json={}), await client.get("/admin/keys")):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "keys_unavailable")
            assert answer.headers["retry-after"]
            assert "srv" not in answer.text


# ---- on record


def bodies(room: Office) -> list[dict[str, Any]]:
    journal: Any = room.archive.journal
    return [record["body"] for record in journal.records]


async def test_each_change_is_on_record_before_it_is_made(room: Office) -> None:
    admin, credential = await room.key(Role.ADMIN)
    async with room.client(credential) as client:
        made = (await client.post("/admin/keys", json=WHOLE)).json()
        await client.post(f"/admin/keys/{made['id']}/rotate", json={"overlap_hours": 1})
        await client.post(f"/admin/keys/{made['id']}/revoke")
        await client.get("/admin/keys")
    told = bodies(room)
    assert [(body["act"], body["phase"]) for body in told] == [
        (f"keys.{what}", phase) for what in ("create", "rotate", "revoke") for phase in ("intent", "done")
    ]  # fmt: skip
    subject = room.archive.subjects.of("Änne O'Hara")
    for body in told[1:5]:
        if "target" in body:
            sealed = json.loads(subject.open(body["target"]["sealed"]))
            assert (sealed["user"], sealed["key"]) == ("Änne O'Hara", made["id"])
    assert told[0]["by"]["key"] == admin.id, "a key of nobody's did it"
    assert (told[0]["role"], told[0]["team"], told[0]["use_cases"]) == ("power_user", "sales", ["mail", "night"])
    assert told[0]["allowance"]["euros_per_month"] == "12.5"
    text = json.dumps(told, ensure_ascii=False)
    for hidden in ("Änne", "mail sorter", made["id"], made["key"]):
        assert hidden not in text


async def test_what_cant_be_put_on_record_isnt_done(room: Office) -> None:
    _, credential = await room.key(Role.ADMIN)
    async with room.client(credential) as client:
        made = (await client.post("/admin/keys", json={})).json()
        before = [record.digest for record in room.registry.select()]
        journal: Any = room.archive.journal
        journal.fail()
        for path in ("/admin/keys", f"/admin/keys/{made['id']}/rotate", f"/admin/keys/{made['id']}/revoke"):
            refused = await client.post(path, json={})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "audit_unavailable")
    assert [record.digest for record in room.registry.select()] == before
    assert room.registry.find(made["id"]).revoked is None


async def test_what_is_refused_is_on_record_as_failed_or_not_at_all(room: Office) -> None:
    _, credential = await room.key(Role.ADMIN)
    auditor, _ = await room.key(Role.AUDITOR)
    async with room.client(credential) as client:
        assert (await client.post("/admin/keys", json={"role": "auditor"})).status_code == 403
        assert (await client.post(f"/admin/keys/{auditor.id}/revoke")).status_code == 403
        assert (await client.post("/admin/keys/sk-not-an-id/revoke")).status_code == 404
        assert (await client.post("/admin/keys", json={"team": ""})).status_code == 400
    assert [(body["act"], body["phase"]) for body in bodies(room)] == [
        ("keys.create", "intent"), ("keys.create", "failed"),
    ]  # fmt: skip
