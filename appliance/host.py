"""What the appliance takes of its host before it seals itself: open files, the public socket, its certificate."""

from __future__ import annotations

import logging
import os
import resource
import socket

from appliance.api import wire
from appliance.config import Config, Settings
from appliance.errors import CannotListen, ConfigInvalid, Problem


def make_room_for_connections(settings: Settings) -> None:
    """Raise the limit on open files to what the kernel grants; say so when that is too little."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    needed = 2 * settings.limits.connections + 64  # each has a connection to its engine beside it
    if most < needed:
        logging.getLogger("appliance").warning(
            "limits.connections is %d, for which %d open files are needed; this process may open %d. "
            "Raise the limit (ulimit -n, LimitNOFILE) or lower limits.connections.",
            settings.limits.connections, needed, most,
        )  # fmt: skip


def keep_no_core_dumps() -> None:
    """A dump would hold prompts, and a host may hand it to a program outside. 1, since 0 doesn't count for those."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    least = 0 if most == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (least, least))


def listen(config: Config) -> socket.socket:
    """The public socket: the one that systemd passed, else one where the config says. Raises `ConfigInvalid`."""
    wanted = config.settings.listen
    try:
        public = wire.passed_socket(os.environ)
        if public is None:
            if wanted.socket is not None:
                return wire.listen_unix(config.path(wanted.socket))
            return wire.listen_tcp(wanted.host, wanted.port)
        objection = wanted.objection(None if public.family == socket.AF_UNIX else public.getsockname()[0])
        if objection:
            public.close()
            raise CannotListen(f"the socket that systemd passed: {objection}")
    except CannotListen as refusal:
        raise ConfigInvalid(str(config.file), [Problem("listen", str(refusal))]) from refusal
    return public


def certificate(config: Config) -> wire.Certificate | None:
    """The certificate and key of `listen.tls`; None without. Raises `ConfigInvalid` for files that can't be used."""
    tls = config.settings.listen.tls
    if tls is None:
        return None
    try:
        return wire.Certificate(config.path(tls.certificate), config.path(tls.key))
    except OSError as cause:
        problem = Problem("listen.tls", f"the certificate or its key can't be used: {cause}")
        raise ConfigInvalid(str(config.file), [problem]) from cause
