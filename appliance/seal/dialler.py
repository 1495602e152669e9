"""The seal of the dialler: it connects, over TCP and to a few ports only, and does nothing else.

Landlock admits TCP connections to the ports it is given, and refuses all others and to listen; a seccomp filter
refuses every socket family but IPv4 and IPv6, MPTCP, Fast Open, binding, io_uring and borrowing another's sockets.
It lives in the host's network, sees the system's own folders, and can write nowhere.

What it doesn't stop: UDP, which looking up a name needs. So whoever runs under this seal may know no secret.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from appliance.seal import filters, kernel, view
from appliance.seal.parts import (
    Parts,
    Seal,
    landlock_scope,
    landlock_tcp,
    may_administrate,
    new_user_namespace,
    no_new_privileges,
    require_one_thread,
)

_DNS = 53
"""Answers too long for UDP come over TCP."""


def seal_dialler(ports: Iterable[int], *, best_effort: bool = False) -> Seal:
    """Leave this process the TCP ports `ports` and 53, to connect to. Call it before any thread starts.

    Raises SealUnavailable at the first part that the kernel refuses, unless `best_effort`.
    """
    parts = Parts(best_effort=best_effort)
    apply = parts.apply
    hidden, kept = view.covered(), {Path(sys.base_prefix), *_resolver_settings()}
    apply("one thread", require_one_thread)
    if not may_administrate():
        apply("user namespace", new_user_namespace)
    apply("ipc namespace", lambda: kernel.unshare(kernel.CLONE_NEWIPC))
    if apply("mount namespace", view.new_mounts):
        apply("hidden folders", lambda: view.hide(hidden, kept))
        apply("read-only files", lambda: view.protect([], []))
    os.chdir("/")  # a working directory below a hidden folder would still reach into it
    apply("no new privileges", no_new_privileges)
    apply("capabilities dropped", kernel.drop_capabilities)
    apply("landlock tcp", lambda: landlock_tcp({*ports, _DNS}))
    apply("landlock scope", landlock_scope, optional=True)
    apply("seccomp", lambda: kernel.seccomp(filters.dialler()))
    apply("still one thread", require_one_thread)  # one that was started meanwhile might lack a part
    return parts.seal()


def _resolver_settings() -> list[Path]:
    """The folder to which /etc/resolv.conf leads where a daemon writes it; a new one takes its place by a rename."""
    folder = Path("/etc/resolv.conf").resolve().parent
    return [folder] if folder.is_dir() and folder.parts[1:2] and folder.parts[1] not in view.SHOWN else []
