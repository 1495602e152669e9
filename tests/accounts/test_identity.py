"""Tokens of an identity provider: what opens, what doesn't, and what is fetched for it. Through a real outlet."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.accounts import published
from appliance.accounts.entries import Kind, Scope
from appliance.accounts.identity import Identity
from appliance.accounts.keys import Keyring, make
from appliance.accounts.published import Unusable, parse
from appliance.config import Accounts
from appliance.core import Role, ServiceClass
from appliance.dispatch.endpoints import Endpoints
from appliance.errors import BooksUnavailable, Unauthenticated
from tests.fakes.certificates import Authority
from tests.fakes.identity_provider import AUDIENCE, ISSUER, IdentityProvider, Signer, encoded, identity_provider
from tests.fakes.way_out import way_out

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


class Clock:
    """Shows the time at which it was made, and what was added since."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[IdentityProvider, Endpoints]]:
    """A provider, and the way to it."""
    with tempfile.TemporaryDirectory(prefix="identity-") as name:
        folder = Path(name)
        authority = Authority(folder)
        with (
            identity_provider(authority.issue("provider")) as provider,
            way_out(folder, accounts={"identity": provider.settings(ca=str(authority.file))}) as endpoints,
        ):
            yield provider, endpoints


@pytest.fixture
def provider(served: tuple[IdentityProvider, Endpoints]) -> IdentityProvider:
    served[0].reset()
    return served[0]


class Made:
    """An identity with clocks of the test's own."""

    def __init__(self, provider: IdentityProvider, endpoints: Endpoints) -> None:
        self.provider, self._endpoints = provider, endpoints
        self.clock, self.monotonic = Clock(time.time()), Clock(1000.0)
        self._identities: list[Identity] = []

    async def __call__(self, *, teams: tuple[str, ...] = (), **changed: Any) -> Identity:
        use_cases = changed.get("use_cases", [])
        accounts = Accounts.model_validate({
            "teams": {name: {} for name in teams}, "use_cases": {name: {} for name in use_cases},
            "identity": self.provider.settings(**changed),
        }, strict=False)  # fmt: skip
        assert accounts.identity
        upstream = await self._endpoints.identity(accounts.identity)
        self._identities.append(Identity(accounts, upstream, clock=self.clock, monotonic=self.monotonic))
        return self._identities[-1]

    async def once(self, **changed: Any) -> Identity:
        """The same for all examples of a test."""
        return self._identities[0] if self._identities else await self(**changed)

    async def close(self) -> None:
        for identity in self._identities:
            await identity.close()


@pytest.fixture
async def made(provider: IdentityProvider, served: tuple[IdentityProvider, Endpoints]) -> AsyncIterator[Made]:
    made = Made(provider, served[1])
    yield made
    await made.close()


def refusal_of_a_wrong_key() -> Unauthenticated:
    keyring = Keyring(b"p" * 32)
    keyring.confirm(time.monotonic())
    with pytest.raises(Unauthenticated) as refused:
        keyring.authenticate(make())
    return refused.value


async def refused(identity: Identity, token: str) -> str:
    """That a token is refused as a wrong key is; the reason that the log gets."""
    with pytest.raises(Unauthenticated) as refused:
        await identity.authenticate(token)
    wrong = refusal_of_a_wrong_key()
    assert (str(refused.value), refused.value.code, refused.value.status) == (str(wrong), wrong.code, wrong.status)
    assert refused.value.reason
    assert not any(part in refused.value.reason for part in token.split(".") if len(part) > 8)
    assert "erika" not in refused.value.reason
    return refused.value.reason


async def test_a_token_says_who_asks(made: Made) -> None:
    identity = await made(claims={"team": "department"}, use_cases=["letters"])
    caller = await identity.authenticate(made.provider.token(department="research"))
    assert (caller.user, caller.team, caller.role) == ("erika", "research", Role.USER)
    assert (caller.use_cases, caller.service_class) == (frozenset({"letters"}), ServiceClass.STANDARD)
    assert caller.key_id == f"oidc_{hashlib.sha256(f'{ISSUER}{chr(0)}7a9e'.encode()).hexdigest()[:16]}"
    again = await identity.authenticate(made.provider.token(exp=int(time.time()) + 60))
    assert again.key_id == caller.key_id
    assert (await identity.authenticate(made.provider.token(sub="other"))).key_id != caller.key_id
    host = f"127.0.0.1:{made.provider.server_port}"
    assert made.provider.heard == [f"{host} /realms/company/keys"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("named", [True, False])
async def test_every_good_way_to_sign_is_taken(made: Made, algorithm: str, named: bool) -> None:
    (signer,) = made.provider.signers = [Signer(algorithm)]
    made.provider.publish(signer.jwk(alg=algorithm if named else None, use="sig" if named else None))
    identity = await made()
    assert (await identity.authenticate(made.provider.token())).user == "erika"


async def test_a_key_that_names_its_algorithm_takes_no_other(made: Made) -> None:
    made.provider.signers = [Signer("RS256")]
    identity = await made()
    assert await identity.authenticate(made.provider.token())
    for other in ("RS384", "PS256"):
        assert "no published key that fits" in await refused(identity, made.provider.token(headers={"alg": other}))


async def test_a_token_without_a_signature_is_refused(made: Made) -> None:
    identity = await made()
    header, body, signature = made.provider.token().split(".")
    kid = made.provider.signers[0].kid
    for none in ("none", "None", "NONE", "", None):
        forged = encoded({"typ": "JWT", "alg": none, "kid": kid})
        for left in ("", signature):
            await refused(identity, f"{forged}.{body}.{left}")
    await refused(identity, f"{header}.{body}.")
    await refused(identity, f"{encoded({'typ': 'JWT', 'kid': kid})}.{body}.{signature}")
    await refused(identity, jwt.encode(made.provider.claims(), None, "none", {"kid": kid}))


async def test_a_public_key_is_no_shared_secret(made: Made) -> None:
    (signer,) = made.provider.signers = [Signer("RS256")]
    identity = await made()
    public = signer.private.public_key()
    jwk = json.dumps(signer.jwk()).encode()
    for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER, None):
        secret = public.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo) if encoding else jwk
        for name, digest in (("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512")):
            signed = f"{encoded({'alg': name, 'kid': signer.kid})}.{encoded(made.provider.claims())}"
            mac = hmac.digest(secret, signed.encode(), digest)
            assert "isn't accepted" in await refused(identity, f"{signed}.{encoded(mac)}")


async def test_a_published_secret_opens_nothing(made: Made) -> None:
    secret = b"s" * 64
    shared = {"kty": "oct", "k": encoded(secret), "kid": "shared", "alg": "HS256"}
    made.provider.publish(shared, made.provider.signers[0].jwk())
    identity = await made()
    assert await identity.authenticate(made.provider.token())
    await refused(identity, jwt.encode(made.provider.claims(), secret, "HS256", {"kid": "shared"}))


def wrong_claims(now: int) -> dict[str, dict[str, Any]]:
    """What is wrong, and the claims of it."""
    return {
        "another issuer": {"iss": "https://login.other.test"},
        "the issuer with a slash more": {"iss": ISSUER + "/"},
        "issuers in a list": {"iss": [ISSUER]},
        "another audience": {"aud": "other"},
        "audiences without ours": {"aud": ["other", "account"]},
        "part of the audience": {"aud": AUDIENCE[:-1]},
        "expired": {"iat": now - 600, "exp": now - 60},
        "not yet valid": {"nbf": now + 120},
        "issued in the future": {"iat": now + 120, "exp": now + 240},
        "too long a life": {"exp": now + 3700},
        "for ever": {"exp": 2**53},
        "a time in words": {"exp": str(now + 300)},
        "a start in words": {"nbf": str(now - 60)},
        "a time of truth": {"iat": True},
        "no time at all": {"exp": float("nan")},
        "the end of time": {"exp": float("inf")},
        "a subject that is no word": {"sub": 7},
        "a proof to be shown": {"cnf": {"jkt": "x"}},
        **{f"without {claim}": {claim: None} for claim in ("iss", "sub", "aud", "exp", "iat", "preferred_username")},
    }


@pytest.mark.parametrize("wrong", wrong_claims(0))
async def test_a_token_with_a_wrong_claim_is_refused(made: Made, wrong: str) -> None:
    identity = await made()
    assert await identity.authenticate(made.provider.token())
    await refused(identity, made.provider.token(**wrong_claims(int(time.time()))[wrong]))


async def test_clocks_may_differ_by_half_a_minute(made: Made) -> None:
    identity = await made()
    now = int(time.time())
    for claims in ({"iat": now + 20}, {"nbf": now + 20}, {"iat": now - 300, "exp": now - 10}):
        assert await identity.authenticate(made.provider.token(**claims))


async def test_one_audience_of_several_is_enough(made: Made) -> None:
    identity = await made()
    assert await identity.authenticate(made.provider.token(aud=["account", AUDIENCE]))


@pytest.mark.parametrize("kind", ["JWT", "at+jwt", "application/at+jwt", "AT+JWT"])
async def test_access_and_id_tokens_are_taken(made: Made, kind: str) -> None:
    identity = await made()
    assert await identity.authenticate(made.provider.token(headers={"typ": kind}))


@pytest.mark.parametrize(
    "headers",
    [
        {"typ": "logout+jwt"},
        {"typ": "dpop+jwt"},
        {"typ": ["JWT"]},
        {"kid": ["a"]},
        {"crit": ["b64"], "b64": True},
        {"crit": ["exp"], "exp": 1},
        {"kid": "other"},
        {"kid": None},
        {"kid": ""},
    ],
    ids=str,
)
async def test_a_token_with_a_wrong_header_is_refused(made: Made, headers: dict[str, Any]) -> None:
    identity = await made()
    await refused(identity, made.provider.token(headers=headers))


async def test_another_keys_signature_is_refused_under_whatever_name(made: Made) -> None:
    identity = await made()
    stranger = Signer(kid=made.provider.signers[0].kid)
    await refused(identity, made.provider.token(stranger))
    header, body, _ = made.provider.token().split(".")
    await refused(identity, ".".join([header, body, made.provider.token(sub="other").split(".")[2]]))


async def test_what_a_token_names_is_not_fetched(made: Made) -> None:
    identity = await made()
    stranger = Signer()
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.setblocking(False)
        url = f"https://127.0.0.1:{elsewhere.getsockname()[1]}/keys"
        for kid in (stranger.kid, made.provider.signers[0].kid):
            headers = {"jku": url, "x5u": url, "jwk": stranger.jwk(), "kid": kid}
            await refused(identity, made.provider.token(stranger, headers))
            await refused(identity, made.provider.token(stranger, headers, iss=url))
        with pytest.raises(BlockingIOError):
            elsewhere.accept()
    assert {line.partition(" ")[2] for line in made.provider.heard} == {"/realms/company/keys"}


async def test_a_huge_a_cut_and_a_strange_one_are_refused(made: Made) -> None:
    identity = await made()
    token = made.provider.token()
    assert await identity.authenticate(token)
    for end in (1, 10, len(token) // 2, len(token) - 40, len(token) - 1):
        await refused(identity, token[:end])
    for strange in ("", ".", "..", "a.b.c", token + ".x", token + "é", "\udcff" + token, " " + token, token * 2):
        await refused(identity, strange)
    nested = encoded(b"[" * 4000)
    await refused(identity, f"{nested}.{nested}.{nested[:8]}")
    await refused(identity, made.provider.token(much="x" * 8192))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_a_mangled_token_is_refused_and_never_breaks_anything(made: Made, data: st.DataObject) -> None:
    identity = await made.once()
    parts = made.provider.token().split(".")
    which = data.draw(st.integers(0, 2))
    raw = bytearray(base64.urlsafe_b64decode(parts[which] + "=="))
    mangled = bytes(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mangled)))
        cut = data.draw(st.integers(0, 8))
        mangled = mangled[:at] + data.draw(st.binary(max_size=8)) + mangled[at + cut :]
    if mangled != bytes(raw):
        parts[which] = encoded(mangled)
        await refused(identity, ".".join(parts))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=JSON, claim=st.sampled_from(["sub", "aud", "exp", "iat", "nbf", "preferred_username", "team", "roles"]))
async def test_whatever_a_claim_holds_somebody_sensible_asks_or_nobody(made: Made, value: Any, claim: str) -> None:
    identity = await made.once(claims={"team": "team", "role": "roles"}, roles={"boss": "admin"}, teams=("a",))
    try:
        caller = await identity.authenticate(made.provider.token(**{claim: value}))
    except Unauthenticated:
        return
    for name in filter(None, (caller.user, caller.team)):
        assert 0 < len(name) <= 128
        assert name.isprintable()
        assert not any(sign in "/:" for sign in name)
    assert caller.role is Role.USER


@settings(max_examples=300, deadline=None)
@given(document=JSON | st.fixed_dictionaries({"keys": st.lists(JSON, max_size=3)}))
def test_whatever_is_published_is_understood_or_unusable(document: Any) -> None:
    with pytest.raises(Unusable):
        parse(json.dumps(document).encode())


SOUND = [Signer(algorithm, kid="k").jwk() for algorithm in ("ES256", "EdDSA", "RS256")]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_whatever_stands_in_a_published_key_it_is_understood_or_left_out(data: st.DataObject) -> None:
    jwk = dict(data.draw(st.sampled_from(SOUND)))
    for field in data.draw(st.lists(st.sampled_from([*jwk, "key_ops", "d", "p"]), min_size=1, max_size=3)):
        jwk[field] = data.draw(JSON | st.sampled_from([value for each in SOUND for value in each.values()]))
    with contextlib.suppress(Unusable):
        assert {kid for kid, _ in parse(json.dumps({"keys": [jwk]}).encode())} == {jwk["kid"]}


@pytest.mark.parametrize(
    "changed",
    [
        {"use": "enc"},
        {"use": None, "key_ops": ["encrypt"]},
        {"key_ops": "verify"},
        {"kid": None},
        {"kid": 7},
        {"alg": "HS256"},
        {"alg": "ES384"},
        {"alg": ["ES256"]},
        {"kty": "oct"},
        {"kty": ["EC"]},
        {"crv": "P-384"},
        {"crv": "secp256k1"},
        {"x": "AAAA"},
        {"x": 7},
        {"y": None},
    ],
    ids=str,
)
def test_a_key_that_cannot_have_signed_a_token_is_left_out(changed: dict[str, Any]) -> None:
    good, other = Signer(kid="good"), Signer(kid="other")
    both = {"keys": [other.jwk(**changed), good.jwk()]}
    assert parse(json.dumps(both).encode()).keys() == {("good", "ES256")}
    with pytest.raises(Unusable):
        parse(json.dumps({"keys": [other.jwk(**changed)]}).encode())


def test_short_rsa_keys_and_private_ones_are_left_out() -> None:
    short, long = Signer("RS256", bits=1024), Signer("RS256")
    told = jwt.get_algorithm_by_name("RS256").to_jwk(long.private, as_dict=True)
    private = {name: value for name, value in told.items() if name != "key_ops"} | {"kid": "private"}
    for jwk in (short.jwk(), private):
        with pytest.raises(Unusable):
            parse(json.dumps({"keys": [jwk]}).encode())


async def test_a_short_rsa_key_opens_nothing(made: Made) -> None:
    short = Signer("RS256", bits=1024)
    made.provider.publish(short.jwk(), made.provider.signers[0].jwk())
    identity = await made()
    await refused(identity, made.provider.token(short))


async def test_a_new_key_is_fetched_when_a_token_names_it_but_not_again_and_again(made: Made) -> None:
    identity = await made()
    old = made.provider.token()
    assert await identity.authenticate(old)
    made.provider.rotate()
    made.monotonic.now += 11
    assert await identity.authenticate(made.provider.token())
    assert len(made.provider.heard) == 2
    await refused(identity, old)  # also though it was known a moment ago: its key was taken back
    made.provider.rotate()
    for _ in range(50):
        await refused(identity, made.provider.token())
    assert len(made.provider.heard) == 2
    made.monotonic.now += 11
    many = [identity.authenticate(made.provider.token(sub=str(number))) for number in range(50)]
    assert len({caller.key_id for caller in await asyncio.gather(*many)}) == 50
    assert len(made.provider.heard) == 3


async def test_keys_are_fetched_at_the_start_and_now_and_then(made: Made) -> None:
    identity = await made(refresh_seconds=1)
    identity.start()
    for _ in range(3):
        assert await asyncio.to_thread(made.provider.asked.acquire, timeout=10)
    assert identity.trouble is None
    assert await identity.authenticate(made.provider.token())


async def test_without_keys_tokens_are_refused_for_the_time_being(
    made: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made.provider.reply = (500, {}, b"{}")
    identity = await made()
    token = made.provider.token()
    for _ in range(3):
        with pytest.raises(BooksUnavailable) as unavailable:
            await identity.authenticate(token)
        assert (unavailable.value.status, unavailable.value.code) == (503, "identity_unavailable")
        assert "API key" in str(unavailable.value)
    assert len(made.provider.heard) == 1
    assert identity.trouble == "it answered 500"
    assert len(caplog.records) == 1
    assert token not in caplog.text
    made.provider.reply = None
    made.monotonic.now += 11
    assert await identity.authenticate(token)
    assert identity.trouble is None


async def test_old_keys_count_for_three_times_their_refresh_and_then_open_nothing(made: Made) -> None:
    identity = await made(refresh_seconds=100)
    token = made.provider.token()
    assert await identity.authenticate(token)
    made.provider.reply = (503, {}, b"")
    made.monotonic.now += 299
    assert await identity.authenticate(token)
    assert await identity.authenticate(made.provider.token(sub="other"))
    made.monotonic.now += 2
    for known in (token, made.provider.token()):
        with pytest.raises(BooksUnavailable):
            await identity.authenticate(known)
    made.monotonic.now += 11
    made.provider.reply = None
    assert await identity.authenticate(token)


BROKEN: dict[str, tuple[int, dict[str, str], bytes]] = {
    "no JSON": (200, {}, b"<html>"),
    "nothing": (200, {}, b""),
    "a list": (200, {}, b"[]"),
    "a nest": (200, {}, b"[" * 100_000),
    "no keys": (200, {}, b'{"keys": []}'),
    "keys of another kind": (200, {}, b'{"keys": {"kid": 1}}'),
    "no usable key": (200, {}, b'{"keys": [{"kty": "oct", "k": "AAAA", "kid": "a"}]}'),
    "too many keys": (200, {}, json.dumps({"keys": [{}] * 101}).encode()),
    "huge": (200, {}, b'{"keys": [' + b" " * 400_000 + b"]}"),
    "endless": (200, {"content-length": str(2**40)}, b'{"keys": [' + b" " * 400_000),
    "broken off": (200, {"content-length": "100", "connection": "close"}, b'{"keys": ['),
    "missing": (404, {}, b"{}"),
    "not modified": (304, {}, b""),
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_broken_answer_leaves_the_keys_as_they_were(
    made: Made, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "_SECONDS", 1)
    identity = await made()
    token = made.provider.token()
    assert await identity.authenticate(token)
    made.provider.reply = BROKEN[broken]
    made.monotonic.now += 11
    await refused(identity, made.provider.token(Signer()))
    assert len(made.provider.heard) == 2
    assert identity.trouble
    assert await identity.authenticate(token)
    assert await identity.authenticate(made.provider.token(sub="other"))


async def test_a_good_answer_may_only_be_so_large(made: Made) -> None:
    identity = await made()
    assert await identity.authenticate(made.provider.token())
    made.provider.rotate()
    (signer,) = made.provider.signers
    sound = json.dumps({"keys": [signer.jwk()]}).encode()
    for padding, taken in ((2**18, False), (2**18 - len(sound), True)):
        made.provider.reply = (200, {}, sound + b" " * padding)
        made.monotonic.now += 11
        if taken:
            assert await identity.authenticate(made.provider.token())
        else:
            await refused(identity, made.provider.token())
            assert identity.trouble == f"its answer is over {2**18} bytes"


def test_a_set_may_only_have_so_many_keys() -> None:
    jwk = Signer("EdDSA").jwk()
    assert len(parse(json.dumps({"keys": [jwk | {"kid": str(number)} for number in range(100)]}).encode())) == 100
    with pytest.raises(Unusable, match="at most 100 keys"):
        parse(json.dumps({"keys": [jwk | {"kid": str(number)} for number in range(101)]}).encode())


async def test_a_redirect_is_not_followed(made: Made) -> None:
    identity = await made()
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.setblocking(False)
        url = f"https://127.0.0.1:{elsewhere.getsockname()[1]}/keys"
        for status in (301, 302, 307, 308):
            made.provider.reply = (status, {"location": url}, b"")
            made.monotonic.now += 11
            with pytest.raises(BooksUnavailable):
                await identity.authenticate(made.provider.token())
            assert identity.trouble == f"it answered {status}"
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


async def test_a_provider_that_does_not_answer_keeps_nobody_long(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "_SECONDS", 0.2)
    identity = await made()
    made.provider.answering.clear()
    many = [identity.authenticate(made.provider.token()) for _ in range(20)]
    outcomes = await asyncio.gather(*many, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {BooksUnavailable}
    assert len(made.provider.heard) == 1
    made.provider.answering.set()
    made.monotonic.now += 11
    assert await identity.authenticate(made.provider.token())


async def test_one_that_gives_up_waiting_breaks_nobody_elses_fetch(made: Made) -> None:
    identity = await made()
    made.provider.answering.clear()
    impatient, patient = (asyncio.create_task(identity.authenticate(made.provider.token())) for _ in range(2))
    assert await asyncio.to_thread(made.provider.asked.acquire, timeout=10)
    impatient.cancel()
    made.provider.answering.set()
    assert (await patient).user == "erika"
    assert len(made.provider.heard) == 1


async def test_a_known_token_is_verified_once_and_not_after_its_end(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = await made()
    verified = []
    decode = jwt.decode
    monkeypatch.setattr(jwt, "decode", lambda *args, **named: verified.append(1) or decode(*args, **named))  # type: ignore[func-returns-value]
    token = made.provider.token(exp=int(time.time()) + 60)
    for _ in range(5):
        assert await identity.authenticate(token)
    assert len(verified) == 1
    made.clock.now += 89
    assert await identity.authenticate(token)
    assert len(verified) == 1
    made.clock.now += 2
    await identity.authenticate(token)  # asks the library, whose clock the test doesn't move
    assert len(verified) == 2


async def test_who_was_erased_comes_in_with_no_token_for_an_hour(made: Made) -> None:
    identity = await made()
    await identity.authenticate(token := made.provider.token())
    identity.refuse(Scope(Kind.USER, "erika"))
    assert identity._remembered == {}
    for again in (token, made.provider.token(iat=int(time.time()) - 1)):
        assert "erased a moment ago" in await refused(identity, again)
    assert (await identity.authenticate(made.provider.token(preferred_username="ben"))).user == "ben"
    made.monotonic.now += 3601
    assert (await identity.authenticate(token)).user == "erika"


async def test_only_so_many_tokens_are_remembered(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    from appliance.accounts import identity as module

    monkeypatch.setattr(module, "_REMEMBERED", 3)
    identity = await made()
    for number in range(10):
        await identity.authenticate(made.provider.token(sub=str(number)))
        assert len(identity._remembered) <= 3
    with pytest.raises(Unauthenticated):
        await identity.authenticate(made.provider.token(Signer()))
    assert len(identity._remembered) == 3


ROLES = {"llm-users": "user", "llm-power": "power_user", "llm-audit": "auditor", "llm-admins": "admin", "r": "admin"}


@pytest.mark.parametrize(
    ("claim", "value", "role"),
    [
        ("roles", "llm-admins", Role.ADMIN),
        ("roles", ["x", "llm-power", "llm-users"], Role.POWER_USER),
        ("roles", ["llm-users", "llm-admins", "llm-audit"], Role.ADMIN),
        ("roles", ["llm-audit", "llm-power"], Role.AUDITOR),
        ("roles", ["somebody"], Role.USER),
        ("roles", [], Role.USER),
        ("roles", None, Role.USER),
        ("roles", [["llm-admins"], 7, None], Role.USER),
        ("roles", "admin", Role.USER),
        ("realm_access.roles", {"roles": ["llm-admins"]}, Role.ADMIN),
        ("realm_access.roles", {"roles": {"llm-admins": 1}}, None),
        ("realm_access.roles", "llm-admins", Role.USER),
        ("https://house.test/roles", ["llm-admins"], Role.ADMIN),
        ("roles", {"llm-admins": 1}, None),
        ("roles", 7, None),
        ("roles", "r", Role.ADMIN),
    ],
)
async def test_the_mightiest_role_that_a_token_names_counts(
    made: Made, claim: str, value: Any, role: Role | None
) -> None:
    identity = await made(claims={"role": claim}, roles=ROLES)
    token = made.provider.token(**{claim if "://" in claim else claim.partition(".")[0]: value})
    if role is None:
        assert "no word" in await refused(identity, token)
    else:
        assert (await identity.authenticate(token)).role is role


@pytest.mark.parametrize(
    ("value", "team"),
    [
        ("research", "research"),
        ("sales", "sales"),
        (["x", "sales", "research"], "sales"),
        (["x"], None),
        ([{}, 7], None),
        ([], None),
        (None, None),
    ],
)
async def test_a_team_is_a_name_or_the_first_of_a_list_that_is_known(made: Made, value: Any, team: str | None) -> None:
    identity = await made(claims={"team": "groups"}, teams=("sales", "research"))
    assert (await identity.authenticate(made.provider.token(groups=value))).team == team


@pytest.mark.parametrize("name", ["Änne  Groß", "A\u0308nne Groß", " Änne Groß "])
async def test_one_name_is_one_user_however_it_is_written(made: Made, name: str) -> None:
    identity = await made(claims={"team": "groups"})
    caller = await identity.authenticate(made.provider.token(preferred_username=name, groups=name))
    assert (caller.user, caller.team) == ("Änne Groß", "Änne Groß")


NO_NAMES = [
    "", " ", "boss\ufe0f", "p_0123456789abcdef01234567", "a/b", "a:b", "a\n", "\x9b31m", "\u202ea", "\ud800", "\x00",
    "x" * 129, 7, True, ["erika"], {"a": 1},
]  # fmt: skip


@pytest.mark.parametrize("name", NO_NAMES)
@pytest.mark.parametrize("claim", ["preferred_username", "groups"])
async def test_a_name_that_is_none_is_refused(made: Made, name: Any, claim: str) -> None:
    identity = await made(claims={"team": "groups"})
    token = made.provider.token(**{claim: name})
    if claim == "groups" and isinstance(name, list):
        assert (await identity.authenticate(token)).team is None
    else:
        assert f"no fit name in {claim}" in await refused(identity, token)


async def test_new_settings_count_at_once(made: Made) -> None:
    identity = await made()
    token = made.provider.token(groups="research")
    assert (await identity.authenticate(token)).team is None
    changed = made.provider.settings(claims={"team": "groups"})
    identity.take(Accounts.model_validate({"identity": changed}))
    assert (await identity.authenticate(token)).team == "research"
    identity.take(Accounts.model_validate({"identity": changed | {"audience": "another"}}))
    await refused(identity, token)
    made.provider.reply = (503, {}, b"")
    made.monotonic.now += 100
    identity.take(Accounts.model_validate({"identity": changed}))
    assert await identity.authenticate(token)
    identity.take(Accounts.model_validate({"identity": changed | {"refresh_seconds": 10}}))
    with pytest.raises(BooksUnavailable):
        await identity.authenticate(token)


async def test_no_token_is_shown(made: Made) -> None:
    identity = await made()
    token = made.provider.token()
    await identity.authenticate(token)
    assert token not in repr(vars(identity))
    assert "erika" not in repr(identity)
