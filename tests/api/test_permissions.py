"""Who comes in, and what they may: every route, every role, and every way to present a credential."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute

from appliance.accounts import keys
from appliance.accounts.keys import KeyRecord, Keyring, unknown
from appliance.accounts.roles import PERMISSIONS, Permission
from appliance.api.admission import Guarded, authenticate, purpose
from appliance.api.routes import ROUTES, guard
from appliance.config import Accounts, Privacy, UseCase
from appliance.core import Caller, DataClass, Role, ServiceClass
from appliance.errors import BadRequest, Forbidden, Unauthenticated
from tests.fakes.office import Office, office, routes_of

NEEDS = [(method, path) for (method, path), access in ROUTES.items() if access != "public"]
PUBLIC = [(method, path) for (method, path), access in ROUTES.items() if access == "public"]
CHAT = {"model": "chat", "messages": [{"role": "user", "content": "x"}]}


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Office]:
    with office(tmp_path) as made:
        yield made


def concrete(path: str) -> str:
    return path.format(model="chat", asset="favicon.png", id="key_0", seq="1")


# what is stated


def test_every_route_of_the_application_states_its_permission_and_is_behind_it(room: Office) -> None:
    walked: set[tuple[str, str]] = set()
    for route in routes_of(room.app):
        assert isinstance(route, Route), f"{route!r} is nothing for which a permission can be stated"
        assert isinstance(route.app, Guarded), f"{route.path} is reached without a check"
        assert route.methods, route.path
        walked |= {(method, route.path_format) for method in route.methods - {"HEAD"}}
    walked |= {("POST", path) for path in room.app.exchanges}
    assert walked == set(ROUTES)
    assert set(ROUTES.values()) <= {*Permission, "public"}


def test_what_goes_around_the_route_table_asks_for_the_same_permission(room: Office) -> None:
    for path, exchange in room.app.exchanges.items():
        assert exchange.permission == ROUTES["POST", path] == Permission.ASK


def test_only_health_counts_and_docs_are_public() -> None:
    assert {path for _, path in PUBLIC} == {
        "/health/live", "/health/ready", "/metrics", "/docs", "/docs/{asset}", "/openapi.json",
    }  # fmt: skip


async def nothing(_: Any) -> Response:
    return Response()


def unstated() -> list[BaseRoute]:
    return [
        Route("/admin/everything", nothing),
        Route("/v1/models", nothing, methods=["DELETE"]),
        Mount("/static", routes=[Route("/page", nothing)]),
        WebSocketRoute("/v1/realtime", nothing),
    ]


@pytest.mark.parametrize("route", unstated(), ids=lambda route: type(route).__name__ + route.path)
def test_a_route_that_states_none_keeps_the_appliance_from_starting(room: Office, route: BaseRoute) -> None:
    room.app.router.routes.append(route)
    with pytest.raises(RuntimeError, match=r"states no permission|no plain route"):
        guard(room.app, room.house)


def test_a_nested_router_is_no_way_around(room: Office) -> None:
    router = APIRouter()
    router.add_api_route("/admin/more", lambda: None)
    room.app.include_router(router)
    with pytest.raises(RuntimeError, match=r"states no permission|no plain route"):
        guard(room.app, room.house)


def test_a_permission_of_no_route_is_told_of(room: Office) -> None:
    empty = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    with pytest.raises(RuntimeError, match="what is no route"):
        guard(empty, room.house)


# who may


@pytest.mark.parametrize("role", Role)
async def test_every_role_reaches_what_the_table_says_and_nothing_else(room: Office, role: Role) -> None:
    record, key = await room.key(role)
    bodies = set()
    async with room.client(key) as client:
        for method, path in NEEDS:
            permission = ROUTES[method, path]
            if permission in PERMISSIONS[role] and permission in (Permission.SEE_USAGE, Permission.SEE_OWN_USAGE):
                continue  # tests/api/test_usage.py: there is no usage in this office
            answer = await client.request(method, concrete(path), json={})
            if permission in PERMISSIONS[role]:
                assert answer.status_code not in (401, 403), f"{role} {method} {path}"
                continue
            assert answer.status_code == 403, f"{role} {method} {path}"
            error = answer.json()["error"]
            bodies.add((error.get("code", "not_allowed"), error["type"], error["message"]))
    assert len(bodies) == 1, "all refusals look alike"
    assert bodies.pop()[:2] == ("not_allowed", "permission_error")
    assert {key_id for key_id, refusal in room.pipeline.refusals if refusal.status == 403} == {record.id}
    assert not room.pipeline.ran


async def test_auditors_audit_and_do_nothing_else(room: Office) -> None:
    _, key = await room.key(Role.AUDITOR)
    async with room.client(key) as client:
        for method, path in NEEDS:
            status = (await client.request(method, concrete(path), json={})).status_code
            assert (status == 403) is not path.startswith(("/admin/audit", "/admin/policy")), path


async def test_public_routes_need_nothing_and_a_wrong_key_does_not_close_them(room: Office) -> None:
    for key in (None, "wrong"):
        async with room.client(key) as client:
            for method, path in PUBLIC:
                assert (await client.request(method, concrete(path))).status_code == 200, path


async def test_without_a_credential_nothing_else_opens_and_the_answer_says_what_to_send(room: Office) -> None:
    async with room.client() as client:
        for method, path in NEEDS:
            answer = await client.request(method, concrete(path), json={})
            assert answer.status_code == 401
            assert "Authorization: Bearer" in answer.text
            if not path.startswith("/v1/messages"):
                assert answer.json()["error"]["code"] == "missing_api_key"


# what is presented

WRONG = {
    "another": lambda key: [("authorization", "Bearer sk-appliance-" + "x" * 43)],
    "truncated": lambda key: [("authorization", f"Bearer {key[:-1]}")],
    "with more behind it": lambda key: [("x-api-key", f"{key}x")],
    "oversized": lambda key: [("x-api-key", key * 100)],
    "not ASCII": lambda key: [("authorization", f"Bearer {key}ü")],
    "odd bytes": lambda key: [("x-api-key", "\xff\xfe")],
    "both headers": lambda key: [("authorization", f"Bearer {key}"), ("x-api-key", key)],
    "one good, one bad": lambda key: [("x-api-key", key), ("authorization", "Bearer other")],
    "another scheme beside it": lambda key: [("x-api-key", key), ("authorization", "Basic abc")],
    "bearer twice": lambda key: [("authorization", f"Bearer {key}"), ("authorization", f"Bearer {key}")],
    "x-api-key twice": lambda key: [("x-api-key", key), ("x-api-key", key)],
    "an empty one beside it": lambda key: [("x-api-key", ""), ("authorization", f"Bearer {key}")],
    "two in one": lambda key: [("authorization", f"Bearer {key}, Bearer {key}")],
    "like a token": lambda key: [("authorization", "Bearer e30.e30.e30")],
}


async def answers_to(room: Office, sent: list[tuple[str, str]]) -> list[httpx.Response]:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in sent]
    async with room.client() as client:
        return [
            await client.request(method, path, headers=headers, json=CHAT if method == "POST" else None)
            for method, path in (("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("POST", "/admin/keys"))
        ]


@pytest.mark.parametrize("case", WRONG)
async def test_every_wrong_credential_is_the_same_401(room: Office, case: str) -> None:
    _, key = await room.key()
    alike = {"error": {"message": str(unknown("")), "type": "authentication_error", "param": None,
                       "code": "invalid_api_key"}}  # fmt: skip
    for answer in await answers_to(room, WRONG[case](key)):
        assert (answer.status_code, answer.json()) == (401, alike)
        assert set(answer.headers) == {"content-length", "content-type", "x-request-id"}
    assert not room.pipeline.ran


async def test_expired_revoked_and_rotated_keys_are_the_same_401_and_only_the_log_says_why(room: Office) -> None:
    record, expired = await room.key(expires=1.0)
    other, revoked = await room.key()
    third, rotated = await room.key()
    room.registry.revoke(other.id)
    room.registry.rotate(third.id, 0)
    await room.watch.look()
    bodies = {
        answer.content
        for key in (expired, revoked, rotated, "nobody's")
        for answer in await answers_to(room, [("authorization", f"Bearer {key}")])
    }
    assert len(bodies) == 1
    reasons = {refusal.reason for _, refusal in room.pipeline.refusals}
    assert reasons == {
        f"{record.id} is expired", f"{other.id} is revoked", f"{third.id} is rotated", "unknown key",
    }  # fmt: skip


@pytest.mark.parametrize("sent", [
    [("authorization", "Bearer KEY")], [("authorization", "bearer KEY")], [("authorization", "BEARER  KEY ")],
    [("x-api-key", "KEY")], [("X-Api-Key", " KEY ")],
])  # fmt: skip
async def test_a_key_opens_in_either_header(room: Office, sent: list[tuple[str, str]]) -> None:
    _, key = await room.key()
    chat, models, _ = await answers_to(room, [(name, value.replace("KEY", key)) for name, value in sent])
    assert (chat.status_code, models.status_code) == (200, 200)


@pytest.mark.parametrize("sent", [
    [], [("authorization", "")], [("authorization", "Bearer")], [("authorization", "Bearer  ")], [("x-api-key", "")],
    [("authorization", "Basic abc")],
])  # fmt: skip
async def test_no_key_at_all_says_how_to_send_one(room: Office, sent: list[tuple[str, str]]) -> None:
    for answer in await answers_to(room, sent):
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "missing_api_key")


NAMES = st.sampled_from([b"authorization", b"x-api-key", b"x-use-case", b"x-data-class", b"x-route", b"host"])
VALUES = st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(lambda value: b"Bearer " + value))


@given(st.lists(st.tuples(NAMES, VALUES), max_size=4))
async def test_no_bytes_in_headers_open_or_break_anything(headers: list[tuple[bytes, bytes]]) -> None:
    ring = Keyring(bytes(32), monotonic=lambda: 0.0)
    ring.renew([KeyRecord("key_1", keys.digest_of("good", bytes(32)), name="", created=0.0, created_by="host")])
    ring.confirm(0.0)
    with pytest.raises(Unauthenticated):
        await authenticate({"headers": headers}, SimpleNamespace(keys=ring, watch=None, identity=_Tokens()))
    with contextlib.suppress(Forbidden, BadRequest):
        caller = Caller("key_1", use_cases=frozenset({"mail"}))
        found = purpose({"headers": headers}, caller, {}, DataClass.CONFIDENTIAL)
        assert found.data_class.rank >= DataClass.CONFIDENTIAL.rank


class _Tokens:
    """An identity provider that knows one token."""

    async def authenticate(self, token: str) -> Caller:
        if token != "good.token.sig":
            raise unknown("a token: forged")
        return Caller("token_anna", user="anna")


async def test_what_looks_like_a_token_is_one_only_where_there_is_an_identity_provider(room: Office) -> None:
    await room.watch.look()
    token = [("authorization", "Bearer good.token.sig")]
    assert {answer.status_code for answer in await answers_to(room, token)} == {401}
    room.house.identity = _Tokens()
    chat, models, admin = await answers_to(room, token)
    assert (chat.status_code, models.status_code, admin.status_code) == (200, 200, 403)
    assert room.pipeline.ran[-1].caller.user == "anna"
    wrong = [await answers_to(room, [(name, value)]) for name, value in (
        ("authorization", "Bearer forged.token.sig"), ("x-api-key", "good.token.sig"), ("x-api-key", "nobody's"),
    )]  # fmt: skip
    assert len({answer.content for each in wrong for answer in each}) == 1


async def test_while_keys_can_not_be_confirmed_nobody_comes_in_and_the_next_look_ends_it(room: Office) -> None:
    _, key = await room.key()
    room.keyring.confirm(-1e9)
    for answer in await answers_to(room, [("x-api-key", key)]):
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "keys_unavailable")
        assert answer.headers["retry-after"] == "5"
    await room.watch.look()
    chat, *_ = await answers_to(room, [("x-api-key", key)])
    assert chat.status_code == 200


# what it is for


async def ask(room: Office, key: str, *named: str) -> httpx.Response:
    headers = [(b"authorization", f"Bearer {key}".encode()), *((b"x-use-case", name.encode()) for name in named)]
    async with room.client() as client:
        return await client.post("/v1/chat/completions", json=CHAT, headers=headers)


async def test_a_use_case_of_the_key_is_what_the_request_is_for_and_sets_its_class(room: Office) -> None:
    _, key = await room.key(use_cases=frozenset({"mail", "night"}), service_class=ServiceClass.INTERACTIVE)
    for named in ([], ["mail"], ["night"]):
        assert (await ask(room, key, *named)).status_code == 200
    assert [(each.use_case, each.service_class) for each in room.pipeline.ran] == [
        (None, ServiceClass.INTERACTIVE), ("mail", ServiceClass.INTERACTIVE), ("night", ServiceClass.BATCH),
    ]  # fmt: skip


@pytest.mark.parametrize("named", [
    ["night"], ["gone"], ["nowhere"], ["Mail"], ["mail,night"], [""], ["mail", "mail"], ["mäil"], ["mail\x00"],
    ["m" * 999],
])  # fmt: skip
async def test_any_other_use_case_is_the_same_403(room: Office, named: list[str]) -> None:
    _, key = await room.key(use_cases=frozenset({"mail", "gone"}))
    answer = await ask(room, key, *named)
    assert answer.status_code == 403
    assert answer.json()["error"] == {
        "message": "this key doesn't permit that; ask an administrator", "type": "permission_error", "param": None,
        "code": "not_allowed",
    }  # fmt: skip
    assert not room.pipeline.ran


# how sensitive it is, and where it may go


CLASSES: list[DataClass | None] = [None, *DataClass]


@pytest.mark.parametrize(("of_key", "of_use_case"), list(itertools.product(CLASSES, CLASSES)))
async def test_of_all_that_say_how_sensitive_a_request_is_the_highest_counts(
    room: Office, of_key: DataClass | None, of_use_case: DataClass | None
) -> None:
    """Config, key, use case and header: none of them lowers what another says."""
    room.house.accounts = Accounts(use_cases={"mail": UseCase(data_class=of_use_case)})
    _, key = await room.key(use_cases=frozenset({"mail"}), data_class=of_key)
    expected, asked = [], itertools.product(DataClass, CLASSES, (False, True))
    async with room.client(key) as client:
        for floor, header, named in asked:
            room.house.privacy = Privacy(floor=floor)
            headers: dict[str, str] = {"x-data-class": header} if header is not None else {}
            headers |= {"x-use-case": "mail"} if named else {}
            assert (await client.post("/v1/chat/completions", json=CHAT, headers=headers)).status_code == 200
            said = [floor, of_key, header, of_use_case if named else None]
            expected.append(max(CLASSES.index(each) for each in said) - 1)
    assert [each.data_class.rank for each in room.pipeline.ran] == expected
    assert len(expected) == 40


async def send(room: Office, *headers: tuple[str, str]) -> httpx.Response:
    _, key = await room.key()
    async with room.client(key) as client:
        return await client.post("/v1/chat/completions", json=CHAT, headers=list(headers))


async def test_an_app_can_demand_an_answer_from_the_house(room: Office) -> None:
    assert (await send(room)).status_code == (await send(room, ("x-route", "local"))).status_code == 200
    assert [each.local_only for each in room.pipeline.ran] == [False, True]


@pytest.mark.parametrize("sent", [
    [("x-data-class", "secret")], [("x-data-class", "Personal")], [("x-data-class", "")],
    [("x-data-class", "public, personal")], [("x-data-class", "personal"), ("x-data-class", "personal")],
    [("x-data-class", "public"), ("x-data-class", "personal")],
])  # fmt: skip
async def test_a_class_that_there_is_not_is_refused_by_name(room: Office, sent: list[tuple[str, str]]) -> None:
    answer = await send(room, *sent)
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": "the header X-Data-Class must be one of public, internal, confidential, personal, and be sent once",
        "type": "invalid_request_error", "param": "X-Data-Class", "code": "invalid_value",
    }  # fmt: skip
    assert not room.pipeline.ran


@pytest.mark.parametrize("sent", [
    [("x-route", "cloud")], [("x-route", "Local")], [("x-route", "")], [("x-route", "local"), ("x-route", "local")],
])  # fmt: skip
async def test_any_other_route_is_refused_by_name(room: Office, sent: list[tuple[str, str]]) -> None:
    answer = await send(room, *sent)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "X-Route")
    assert answer.json()["error"]["message"] == "the header X-Route must be local, or be left out, and be sent once"
    assert not room.pipeline.ran


async def test_the_body_can_not_set_the_class(room: Office) -> None:
    _, key = await room.key()
    async with room.client(key) as client:
        for field in (
            {"priority": -10}, {"service_class": "interactive"}, {"service_tier": "priority"}, {"data_class": "public"},
            {"local_only": False},
        ):  # fmt: skip
            await client.post("/v1/chat/completions", json=CHAT | field)
    for request in room.pipeline.ran:
        assert request.service_class is ServiceClass.STANDARD
        assert request.data_class is Privacy().floor
        assert b"priority" not in request.payload
        assert b"service_" not in request.payload


async def test_no_answer_and_no_reason_for_the_log_repeats_what_was_presented(room: Office) -> None:
    _, key = await room.key()
    secrets = [key, key[:-1], "mail-secret"]
    answers = [
        *await answers_to(room, [("authorization", f"Bearer {key[:-1]}")]),
        *await answers_to(room, [("x-api-key", key), ("x-api-key", key)]),
        await ask(room, key, "mail-secret"),
    ]
    said = "".join(answer.text for answer in answers)
    said += "".join(f"{refusal!r} {refusal.reason}" for _, refusal in room.pipeline.refusals)
    assert said
    for secret in secrets:
        assert secret not in said
    assert keys.PREFIX not in said
