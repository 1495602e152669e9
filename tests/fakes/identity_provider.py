"""A company's identity provider (OpenID Connect), as far as the appliance hears of it: keys that it publishes by HTTPS.

It signs whatever a test wants, can be slow and broken, and notes what it is asked.
"""

from __future__ import annotations

import base64
import http.server
import json
import secrets
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.fakes.certificates import Pair

ISSUER, AUDIENCE = "https://login.house.test/realms/company", "appliance"
_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


def encoded(value: Any) -> str:
    """A part of a token: what holds these bytes, or this as JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Signer:
    """A key pair of the provider's."""

    algorithm: str = "ES256"
    bits: int = 2048
    kid: str = field(default_factory=lambda: secrets.token_hex(4))

    def __post_init__(self) -> None:
        self.private: Any
        if self.algorithm in _CURVES:
            self.private = ec.generate_private_key(_CURVES[self.algorithm])
        elif self.algorithm == "EdDSA":
            self.private = ed25519.Ed25519PrivateKey.generate()
        else:
            self.private = rsa.generate_private_key(65537, self.bits)

    def jwk(self, **changed: Any) -> dict[str, Any]:
        """What is published of it; None takes a field out."""
        made = jwt.get_algorithm_by_name(self.algorithm).to_jwk(self.private.public_key(), as_dict=True)
        told = made | {"key_ops": None, "use": "sig", "alg": self.algorithm, "kid": self.kid} | changed
        return {name: value for name, value in told.items() if value is not None}


class IdentityProvider(http.server.ThreadingHTTPServer):
    """Answers at `keys_url` with `reply`, else with the keys of its signers, once `answering` is set.

    `asked` is released for each request.
    """

    daemon_threads = True

    def __init__(self, pair: Pair) -> None:
        self.heard: list[str] = []
        self.reset()
        super().__init__(("127.0.0.1", 0), _Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def reset(self) -> None:
        """Be as new: one signer, sound and quick."""
        self.signers = [Signer()]
        self.reply: tuple[int, dict[str, str], bytes] | None = None
        self.answering = threading.Event()
        self.answering.set()
        self.heard.clear()
        self.asked = threading.Semaphore(0)

    def handle_error(self, *_: object) -> None:
        """A client that breaks off is what some tests are about."""

    @property
    def keys_url(self) -> str:
        """As an administrator would write it."""
        return f"https://127.0.0.1:{self.server_port}/realms/company/keys"

    def settings(self, **changed: Any) -> dict[str, Any]:
        """`accounts.identity` of a config."""
        return {"issuer": ISSUER, "audience": AUDIENCE, "keys_url": self.keys_url} | changed

    def publish(self, *jwks: Any) -> None:
        """Publish these instead of the signers' own."""
        self.reply = (200, {}, json.dumps({"keys": jwks}).encode())

    def rotate(self) -> None:
        """Sign with a new key, and publish that alone."""
        self.signers = [Signer(self.signers[0].algorithm)]

    def claims(self, **changed: Any) -> dict[str, Any]:
        """What a token of Erika's says now; None takes a claim out."""
        now = int(time.time())
        told = {"iss": ISSUER, "sub": "7a9e", "aud": AUDIENCE, "iat": now, "exp": now + 300}
        told |= {"preferred_username": "erika", **changed}
        return {name: value for name, value in told.items() if value is not None}

    def token(self, signer: Signer | None = None, headers: dict[str, Any] | None = None, **changed: Any) -> str:
        """A signed token with such headers and claims, sensible or not; None takes one out."""
        signer = signer or self.signers[0]
        told = {"typ": "JWT", "alg": signer.algorithm, "kid": signer.kid} | (headers or {})
        header = {name: value for name, value in told.items() if value is not None}
        signed = f"{encoded(header)}.{encoded(self.claims(**changed))}"
        algorithm = jwt.get_algorithm_by_name(header.get("alg", signer.algorithm))
        return f"{signed}.{encoded(algorithm.sign(signed.encode(), signer.private))}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: IdentityProvider
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.heard.append(f"{self.headers['host']} {self.path}")
        self.server.asked.release()
        self.server.answering.wait(60)
        keys = {"keys": [signer.jwk() for signer in self.server.signers]}
        status, headers, body = self.server.reply or (200, {}, json.dumps(keys).encode())
        self.send_response(status)
        for name, value in ({"content-type": "application/json", "content-length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Tests read `heard`."""


@contextmanager
def identity_provider(pair: Pair) -> Iterator[IdentityProvider]:
    """A running provider with that certificate."""
    with IdentityProvider(pair) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.answering.set()
            server.shutdown()
            thread.join()
