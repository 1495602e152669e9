"""A clearance is for one request, once, and soon."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.clearance import LONGEST_SECONDS, Clearances, Cleared, NotCleared, digest, sign, verify

KEY = Ed25519PrivateKey.generate()
NOW = 1_800_000_000
BODY = b'{"messages": []}'
CLEARED = Cleared("mistral", "POST", "/v1/chat/completions", digest(BODY), NOW + 10, "0" * 32)
REQUEST = {"provider": "mistral", "method": "POST", "path": "/v1/chat/completions", "body": BODY}


def check(clearance: str, *, now: float = NOW, **changed: object) -> Cleared:
    return verify(KEY.public_key(), clearance, **{**REQUEST, **changed}, now=now)  # type: ignore[arg-type]


def test_it_says_what_was_signed() -> None:
    assert check(sign(KEY, CLEARED)) == CLEARED


@pytest.mark.parametrize(
    "changed",
    [
        {"provider": "other"},
        {"method": "GET"},
        {"path": "/v1/chat/completions?leak=1"},
        {"path": "/v1/embeddings"},
        {"body": BODY + b" "},
        {"body": b""},
    ],
    ids=str,
)
def test_it_is_for_no_other_request(changed: dict[str, object]) -> None:
    with pytest.raises(NotCleared, match="not for this request"):
        check(sign(KEY, CLEARED), **changed)


@pytest.mark.parametrize(
    "other",
    [replace(CLEARED, expires=CLEARED.expires + 1), replace(CLEARED, serial="f" * 32)],
    ids=["its time", "its serial"],
)
def test_it_can_not_be_altered(other: Cleared) -> None:
    signature = sign(KEY, CLEARED).rsplit(".", 1)[1]
    with pytest.raises(NotCleared, match="not for this request"):
        check(f"{other.expires}.{other.serial}.{signature}")


def test_nobody_else_can_sign_it() -> None:
    with pytest.raises(NotCleared, match="not for this request"):
        check(sign(Ed25519PrivateKey.generate(), CLEARED))


@pytest.mark.parametrize("expires", [0, NOW - 1, NOW, NOW + LONGEST_SECONDS + 1, 999_999_999_999])
def test_it_holds_only_now(expires: int) -> None:
    with pytest.raises(NotCleared, match="another time"):
        check(sign(KEY, replace(CLEARED, expires=expires)))


@pytest.mark.parametrize(
    "clearance",
    ["", "none", "1.2.3", f"{NOW + 10}.{'0' * 32}.", f"-1.{'0' * 32}.{'A' * 86}", f"{NOW}.{'0' * 32}.{'A' * 87}",
     f"{NOW + 10}.{'0' * 32}.{'é' * 86}", f"{NOW + 10}.{'0' * 32}.{'A' * 86}\n", f"{'9' * 99}.{'0' * 32}.{'A' * 86}"],
)  # fmt: skip
def test_what_is_none_is_refused(clearance: str) -> None:
    with pytest.raises(NotCleared, match="malformed"):
        check(clearance)


def spend(clearances: Clearances, cleared: Cleared, now: float = NOW) -> None:
    clearances.spend(sign(KEY, cleared), method="POST", path=cleared.path, body=BODY, now=now)


def test_it_is_taken_once() -> None:
    clearances = Clearances(KEY.public_key().public_bytes_raw(), "mistral")
    spend(clearances, CLEARED)
    with pytest.raises(NotCleared, match="has been used"):
        spend(clearances, CLEARED)
    spend(clearances, replace(CLEARED, serial="1" * 32))


def test_what_has_expired_is_not_remembered_and_still_refused() -> None:
    clearances = Clearances(KEY.public_key().public_bytes_raw(), "mistral")
    for number in range(100):
        spend(clearances, replace(CLEARED, serial=f"{number:032x}", expires=NOW + number + 1), now=NOW + number)
    assert len(clearances._spent) == 1
    with pytest.raises(NotCleared, match="another time"):
        spend(clearances, replace(CLEARED, serial=f"{0:032x}"), now=NOW + 100)


def test_where_nobody_clears_nothing_is_cleared() -> None:
    with pytest.raises(NotCleared, match="nothing here clears requests"):
        spend(Clearances(None, "mistral"), CLEARED)
