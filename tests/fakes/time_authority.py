"""A time stamping authority (RFC 3161): OpenSSL's own behind a small HTTP server, with a test's own certificates."""

from __future__ import annotations

import datetime
import http.server
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.fakes.serving import serving

_CONFIG = """
[tsa]
default_tsa = one
[one]
serial = {folder}/serial
default_policy = 1.2.3.4.1
digests = {digests}
signer_digest = sha256
ess_cert_id_alg = sha256
"""
_DAY = datetime.timedelta(days=1)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True)
class Signer:
    """A certificate that signs time stamps, in PEM files with its key and the certificates above it."""

    certificate: Path
    key: Path
    above: Path


class Root:
    """Signs the certificates of authorities; `file` is what an administrator gives as `certificate`."""

    def __init__(self, folder: Path, name: str = "root") -> None:
        self._folder, self._name, self._key = folder, name, ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(name))
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 400 * _DAY)
            .not_valid_after(now + 400 * _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), False)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(_pem(self._certificate))

    def issue(
        self, name: str = "tsa", *, valid: bool = True, purpose: bool = True, below: Root | None = None
    ) -> Signer:
        """A new certificate: one that has expired, or one for no time stamps, if so wanted."""
        key = ec.generate_private_key(ec.SECP256R1())
        ends = datetime.datetime.now(datetime.UTC) + (_DAY if valid else -_DAY)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(self._name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(ends - 30 * _DAY)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False)
        )
        use = ExtendedKeyUsageOID.TIME_STAMPING if purpose else ExtendedKeyUsageOID.SERVER_AUTH
        # OpenSSL refuses to sign with another purpose, so such a one is tried by a test that forges the answer
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=True)
        signer = Signer(self._folder / f"{name}.crt", self._folder / f"{name}.key", self.file)
        signer.certificate.write_bytes(_pem(builder.sign(self._key, hashes.SHA256())))
        plain = serialization.NoEncryption()
        form = serialization.PrivateFormat.PKCS8
        signer.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
        return signer


class TimeAuthority(http.server.ThreadingHTTPServer):
    """Stamps what it is asked for, once `answering` is set. `asked` is released for each question.

    `forge` gets the question and `stamp`, and gives status and body of the answer in place of the right one.
    """

    daemon_threads = True

    def __init__(self, folder: Path, signer: Signer) -> None:
        self._folder, self.signer = folder, signer
        self._signing = threading.Lock()
        (folder / "serial").write_text("01\n")
        self.heard: list[tuple[str, dict[str, str], bytes]] = []
        self.forge: Callable[[bytes, Callable[..., bytes]], tuple[int, bytes]] | None = None
        self.answering = threading.Event()
        self.answering.set()
        self.asked = threading.Semaphore(0)
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, *_: object) -> None:
        """A client that breaks off is what some tests are about."""

    @property
    def url(self) -> str:
        """As an administrator would write it."""
        return f"http://127.0.0.1:{self.server_port}/tsa"

    def stamp(self, query: bytes, signer: Signer | None = None, digests: str = "sha256") -> bytes:
        """OpenSSL's answer to a question. A digest that isn't among `digests` is refused."""
        signer = signer or self.signer
        with self._signing:
            (self._folder / "tsa.cnf").write_text(_CONFIG.format(folder=self._folder, digests=digests))
            (self._folder / "query").write_bytes(query)
            command = ["openssl", "ts", "-reply", "-config", self._folder / "tsa.cnf", "-section", "one"]
            command += ["-queryfile", self._folder / "query", "-signer", signer.certificate, "-inkey", signer.key]
            done = subprocess.run([*command, "-chain", signer.above], capture_output=True, check=True)
        return done.stdout

    def answer(self, query: bytes) -> tuple[int, bytes]:
        """Status and body."""
        return self.forge(query, self.stamp) if self.forge else (200, self.stamp(query))


class _Handler(http.server.BaseHTTPRequestHandler):
    server: TimeAuthority
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body in one, or the second waits for the network

    def do_POST(self) -> None:
        query = self.rfile.read(int(self.headers["content-length"]))
        self.server.heard.append((self.path, dict(self.headers.items()), query))
        self.server.asked.release()
        self.server.answering.wait(60)
        status, body = self.server.answer(query)
        self.send_response(status)
        self.send_header("content-type", "application/timestamp-reply")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Tests read `heard`."""


@contextmanager
def time_authority(folder: Path, signer: Signer) -> Iterator[TimeAuthority]:
    """A running authority that signs with that certificate."""
    server = TimeAuthority(folder, signer)
    with serving(server, server.answering):
        yield server
