"""A TLS certificate that is renewed while connections are served."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

log = logging.getLogger(__name__)


class Certificate:
    """A TLS context (1.2 or newer, HTTP/1.1) that follows its files.

    Raises OSError or ssl.SSLError if the first pair can't be read or doesn't match.
    """

    def __init__(self, chain_file: Path, key_file: Path) -> None:
        self._chain_file, self._key_file = chain_file, key_file
        self._seen = self._stamp()
        self.context = self._load()

    def refresh(self) -> bool:
        """Takes changed files for new connections; true if it did. A pair that doesn't fit is never taken."""
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return False
            self._load()  # on its own first: half a pair must not reach the context in use
            self.context.load_cert_chain(self._chain_file, self._key_file)
        except OSError as error:  # ssl.SSLError is one; half-written files are complete by the next look
            log.warning("certificate %s not renewed: %s", self._chain_file.name, error)
            return False
        self._seen = stamp
        log.info("certificate %s renewed", self._chain_file.name)
        return True

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(self._chain_file, self._key_file)
        return context

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        stats = [file.stat() for file in (self._chain_file, self._key_file)]
        return tuple((one.st_mtime_ns, one.st_size, one.st_ino) for one in stats)
