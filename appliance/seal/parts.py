"""What a seal is made of: named parts, applied one by one."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import SealUnavailable
from appliance.seal import kernel

_NAMESPACES = (
    "allow user namespaces: sysctl kernel.unprivileged_userns_clone=1 and user.max_user_namespaces>0; "
    "Ubuntu 24.04: kernel.apparmor_restrict_unprivileged_userns=0 or an AppArmor profile with `userns,`; "
    "Docker: --security-opt seccomp=configs/container/seccomp.json (docs/deploy.md)"
)
_HOW = {
    "one thread": "call it before anything starts a thread (imports of native libraries may)",
    "no open socket": "call it before anything but a Unix or listening TCP socket is opened",
    "landlock tcp": "needs Linux 6.7 with `landlock` in the boot parameter lsm=; "
    "Docker: a seccomp profile that admits landlock_* (Docker 20.10.13)",
    "landlock domain": "needs Linux 5.19 with `landlock` in the boot parameter lsm=; "
    "Docker: a seccomp profile that admits landlock_* (Docker 20.10.13)",
    "landlock scope": "needs Linux 6.12",
    "seccomp": "needs CONFIG_SECCOMP_FILTER",
    "hidden folders": "every path that stays readable or writable has to exist",
    "fresh proc": "Docker: --security-opt systempaths=unconfined, and GPUs by CDI rather than the older runtime",
    "read-only files": "needs Linux 5.12",
}


@dataclass(frozen=True, slots=True)
class Seal:
    """What holds and what doesn't: names of parts, and for each missing one why and how to get it."""

    holds: tuple[str, ...]
    missing: tuple[str, ...] = ()


class Parts:
    """Applies parts one by one; a refused part is an error, or a line in `missing`."""

    def __init__(self, *, best_effort: bool) -> None:
        self._best_effort = best_effort
        self._holds: list[str] = []
        self._missing: list[str] = []

    def apply(self, name: str, act: Callable[[], object], *, optional: bool = False) -> bool:
        """Apply one part and say whether it holds.

        Raises SealUnavailable when the kernel refuses it, unless it is optional or best effort was asked for.
        """
        try:
            act()
        except OSError as error:
            reason = errno.errorcode.get(error.errno or 0, "?")
            how = _HOW.get(name, _NAMESPACES)
            what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
            line = f"{name}: {what} ({reason}); {how}"
            if not self._best_effort and not optional:
                raise SealUnavailable(f"the seal lacks {line}") from error
            self._missing.append(line)
            return False
        self._holds.append(name)
        return True

    def seal(self) -> Seal:
        """What has been applied so far."""
        return Seal(tuple(self._holds), tuple(self._missing))


def require_one_thread() -> None:
    """Fail where this process has more than one: a seal holds for the calling thread and what descends from it."""
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        raise OSError(errno.EBUSY, f"{threads} threads are running")


def no_new_privileges() -> None:
    """Never again gain a privilege by executing a file; a filter needs that first."""
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def may_administrate() -> bool:
    """Whether namespaces can be made without a user namespace around them."""
    cap_sys_admin, cap_net_admin = 1 << 21, 1 << 12
    needed = cap_sys_admin | cap_net_admin
    return kernel.capabilities() & needed == needed


def new_user_namespace() -> None:
    """Enter a user namespace that knows this one user and group, under their own numbers."""
    user, group = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def landlock_tcp(connect_to: Iterable[int] = ()) -> None:
    """Never again bind TCP, nor connect but to the ports `connect_to`."""
    if kernel.landlock_version() < 4:
        raise OSError(errno.ENOSYS, "Landlock has no TCP rules here")
    rights = kernel.LANDLOCK_BIND_TCP | kernel.LANDLOCK_CONNECT_TCP
    kernel.landlock_deny(net=rights, but_connect_to=connect_to)


def landlock_domain() -> None:
    """Never again mount, nor look into a process that isn't under this seal: not by a handle on it, either, such as
    the one that a Unix socket gives to its other end (SO_PEERPIDFD)."""
    if kernel.landlock_version() < 2:
        raise OSError(errno.ENOSYS, "Landlock can't be had")
    kernel.landlock_deny()


def landlock_scope() -> None:
    """Never again reach an abstract Unix socket of, or signal, whoever isn't under this seal."""
    if kernel.landlock_version() < 6:
        raise OSError(errno.ENOSYS, "Landlock has no scopes here")
    kernel.landlock_deny(scoped=kernel.LANDLOCK_ABSTRACT_UNIX | kernel.LANDLOCK_SIGNAL)


def new_network() -> None:
    """Enter an empty network namespace and bring its loopback up."""
    kernel.unshare(kernel.CLONE_NEWNET)
    get_flags, set_flags, up = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = fcntl.ioctl(control, get_flags, struct.pack("16sh14x", b"lo", 0))
        (flags,) = struct.unpack_from("h", request, 16)
        fcntl.ioctl(control, set_flags, struct.pack("16sh14x", b"lo", flags | up))
