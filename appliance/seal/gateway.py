"""The seal of the gateway, and of whatever else only passes bytes on: it accepts and never connects.

Landlock refuses TCP connect and bind, also on an accepted socket that was disconnected and is reused; a
seccomp filter refuses what Landlock doesn't see: every socket family but Unix, Fast Open, io_uring, foreign
architectures, handing a socket to another process, and the ways to borrow another's. Namespaces take away
the network itself and every Unix socket of a host daemon. Sockets that were bound before keep accepting.

What it doesn't stop: files that something unsealed later runs, and a daemon whose socket lies in a folder
that stays visible. `appliance egress verify` looks for those sockets.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
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


def seal_gateway(
    readable: Iterable[Path] = (),
    writable: Iterable[Path] = (),
    masked: Iterable[Path] = (),
    *,
    scratch: bool = True,
    best_effort: bool = False,
) -> Seal:
    """Close this process's ways out: it keeps accepting on bound sockets, it never connects.

    Call it once the listening sockets are bound and the nursery runs, before any thread or event loop
    starts: it holds only for the calling thread and what descends from it. Everything started later is
    sealed too, and may signal only processes that are. It gives up every capability. Of the folders that
    `view.covered` names it goes on seeing only the paths `readable`, and those `writable`, which alone it can
    write to, but for the folders `masked`, which lie inside them and turn empty. Unix sockets there still
    connect, but for abstract ones. The folders that it sees empty are its own to write to, in memory, unless `scratch`
    is false.

    Raises SealUnavailable at the first part that the kernel refuses, unless `best_effort`.
    """
    parts = Parts(best_effort=best_effort)
    apply = parts.apply
    written = {path.resolve() for path in writable}
    kept = written | {path.resolve() for path in readable}
    hidden, empty = view.covered(), [path.resolve() for path in masked]
    apply("one thread", require_one_thread)
    apply("no open socket", _require_no_open_socket)
    if not may_administrate():
        apply("user namespace", new_user_namespace)
    apply("network namespace", lambda: kernel.unshare(kernel.CLONE_NEWNET))
    apply("ipc namespace", lambda: kernel.unshare(kernel.CLONE_NEWIPC))
    if apply("mount namespace", view.new_mounts):
        apply("hidden folders", lambda: view.hide(hidden, kept))
        apply("masked folders", lambda: view.cover(empty))
        apply("read-only files", lambda: view.protect(set(hidden) - kept if scratch else [], written))
    os.chdir("/")  # a working directory below a hidden folder would still reach into it
    apply("no new privileges", no_new_privileges)
    apply("capabilities dropped", kernel.drop_capabilities)
    apply("landlock tcp", landlock_tcp)
    apply("landlock scope", landlock_scope, optional=True)
    apply("seccomp", lambda: kernel.seccomp(filters.gateway()))
    apply("still one thread", require_one_thread)  # one that was started meanwhile might lack a part
    return parts.seal()


def listen_no_more() -> None:
    """Refuse every thread to listen: else a caller's connection, disconnected, could open another door.

    Call it when the servers run; they listen once more when they start. Raises OSError.
    """
    kernel.seccomp([kernel.never("listen")], every_thread=True)


def _require_no_open_socket() -> None:
    for entry in list(Path("/proc/self/fd").iterdir()):
        descriptor = int(entry.name)
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
        except OSError:  # the listing's own descriptor
            continue
        with socket.socket(fileno=os.dup(descriptor)) as found:
            family, protocol = found.family, found.proto
            listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        inet = family in (socket.AF_INET, socket.AF_INET6)
        if family != socket.AF_UNIX and not (inet and protocol == socket.IPPROTO_TCP and listens):
            raise OSError(errno.EBUSY, f"descriptor {descriptor} is a socket of family {int(family)}")
