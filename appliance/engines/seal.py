"""Two kernel confinements that a process applies to itself, without root and without packages.

**The gateway** must accept TCP and must never start a connection. Landlock refuses TCP connect and
bind, also on an accepted socket that was disconnected and is reused; a seccomp filter refuses what
Landlock doesn't see: every socket family but Unix, Fast Open, io_uring, foreign architectures, and
the ways to borrow another process's socket. Neither alone is enough.

**An engine** needs sockets to itself (gloo), so it gets a network without a way out: namespaces of
its own for network, processes, shared memory and mounts, the last of which hides every folder where
a host daemon may keep a Unix socket; no capability; the same filter with four socket families.

What neither stops: a daemon whose Unix socket has a path that the gateway may open (Landlock can't
refuse that up to ABI 7), and files that something unsealed later runs. So the gateway wants a user
of its own, and no host socket mounted into its container.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from appliance.engines import kernel
from appliance.errors import SealUnavailable

SHOWN = frozenset(("bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "sys", "usr"))
"""The folders at the root of the file system that an engine sees. All others are empty to it, but for what it was
promised: wherever a site keeps its state, models and checkouts, a socket or a secret there is out of reach."""
HIDDEN_INSIDE = ("/dev/shm", "/etc/appliance")  # noqa: S108 - hidden here, not written

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


@dataclass(frozen=True, slots=True)
class ThreadEvidence:
    """One thread as /proc shows it. `network` is its namespace's inode, None where that is hidden."""

    thread: int
    seccomp: int
    no_new_privileges: int
    capabilities: int
    network: int | None


class _Parts:
    """Applies parts one by one; a refused part is an error, or a line in `missing`."""

    def __init__(self, *, best_effort: bool) -> None:
        self._best_effort = best_effort
        self._holds: list[str] = []
        self._missing: list[str] = []

    def apply(self, name: str, act: Callable[[], object], *, optional: bool = False) -> bool:
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
        return Seal(tuple(self._holds), tuple(self._missing))


_NEVER = [
    # io_uring opens and connects sockets without passing a seccomp filter.
    *("io_uring_setup", "io_uring_enter", "io_uring_register"),
    # A key of type dns_resolver makes the kernel run a resolver outside every seal.
    *("add_key", "request_key", "keyctl"),
]
_BORROW = ("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd")
_FAST_OPEN = 0x20000000
_TIOCSTI = 0x5412
_TCP_ULP = 31


def _common_rules() -> list[bytes]:
    return [
        *map(kernel.never, _NEVER),
        kernel.unless("ioctl", {1: _TIOCSTI}),  # types commands into the terminal it was started from
    ]


def _gateway_rules() -> list[bytes]:
    return [
        *_common_rules(),
        *map(kernel.never, _BORROW),
        kernel.only("socket", 0, (socket.AF_UNIX,)),
        kernel.only("socketpair", 0, (socket.AF_UNIX,)),
        # Fast Open connects inside a send, where Landlock doesn't look.
        kernel.without("sendto", 3, _FAST_OPEN),
        kernel.without("sendmsg", 2, _FAST_OPEN),
        kernel.without("sendmmsg", 3, _FAST_OPEN),
        # The "smc" layer turns a TCP socket into one of a family that Landlock doesn't know.
        kernel.unless("setsockopt", {1: socket.IPPROTO_TCP, 2: _TCP_ULP}),
    ]


def _engine_rules(*, alone: bool) -> list[bytes]:
    families = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
    # CUDA shares memory between an engine's own processes through these calls; they reach a
    # stranger's sockets only where the engine isn't alone in its process namespace.
    borrow = [] if alone else [kernel.never(call) for call in _BORROW]
    return [
        *_common_rules(),
        *borrow,
        kernel.only("socket", 0, families),
        kernel.only("socketpair", 0, families),
    ]


def _require_one_thread() -> None:
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        raise OSError(errno.EBUSY, f"{threads} threads are running")


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


def _no_new_privileges() -> None:
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def _landlock_tcp() -> None:
    if kernel.landlock_version() < 4:
        raise OSError(errno.ENOSYS, "Landlock has no TCP rules here")
    kernel.landlock_deny(net=kernel.LANDLOCK_BIND_TCP | kernel.LANDLOCK_CONNECT_TCP, scoped=0)


def _landlock_scope() -> None:
    if kernel.landlock_version() < 6:
        raise OSError(errno.ENOSYS, "Landlock has no scopes here")
    kernel.landlock_deny(net=0, scoped=kernel.LANDLOCK_ABSTRACT_UNIX | kernel.LANDLOCK_SIGNAL)


def seal_gateway(*, best_effort: bool = False) -> Seal:
    """Close this process's ways out: it keeps accepting on bound sockets, it never connects.

    Call it once the listening sockets are bound and the nursery runs, before any thread or event loop
    starts: each of the two holds only for the calling thread and what descends from it. Everything
    started later is sealed too, and may signal only processes that are. It gives up every capability.
    Unix sockets with a path still connect; abstract ones don't (Linux 6.12, else listed as missing).

    Raises SealUnavailable at the first part that the kernel refuses, unless `best_effort`.
    """
    parts = _Parts(best_effort=best_effort)
    parts.apply("one thread", _require_one_thread)
    parts.apply("no open socket", _require_no_open_socket)
    parts.apply("no new privileges", _no_new_privileges)
    parts.apply("capabilities dropped", kernel.drop_capabilities)
    parts.apply("landlock tcp", _landlock_tcp)
    parts.apply("landlock scope", _landlock_scope, optional=True)
    parts.apply("seccomp", lambda: kernel.seccomp(_gateway_rules()))
    return parts.seal()


class EngineSeal:
    """The engine's seal, in the two steps that a new process namespace forces.

    `leave()` in the keeper moves it, and its future children's process ids, into namespaces of their
    own; `close()` in the first child does the rest. Both raise SealUnavailable unless `best_effort`.
    """

    def __init__(self, *, best_effort: bool = False) -> None:
        self._parts = _Parts(best_effort=best_effort)
        self.alone = False
        """Whether children get a process namespace, whose end is theirs."""

    def leave(self) -> None:
        """Enter new user (where CAP_SYS_ADMIN is absent), network, IPC and process namespaces."""
        apply = self._parts.apply
        if not _may_administrate():
            apply("user namespace", _new_user_namespace)
        apply("network namespace", _new_network)
        apply("ipc namespace", lambda: kernel.unshare(kernel.CLONE_NEWIPC))
        self.alone = apply("process namespace", lambda: kernel.unshare(kernel.CLONE_NEWPID))

    def close(self, readable: Iterable[Path], writable: Iterable[Path]) -> Seal:
        """Hide what `covered` names but for the given paths, give up all privileges, filter system calls.

        `readable` paths can be read, `writable` ones written too; all other files turn read-only.
        """
        apply = self._parts.apply
        written = {path.resolve() for path in writable}
        kept = written | {path.resolve() for path in readable}
        hidden = covered()
        if apply("mount namespace", _new_mounts):
            apply("hidden folders", lambda: _hide(hidden, kept))
            apply("fresh proc", _fresh_proc)
            # After it, so that root can't have the kernel run a program outside (kernel.core_pattern).
            apply("read-only files", lambda: _protect(hidden, written))
        os.chdir("/")  # a working directory below a hidden folder would still reach into it
        apply("no new privileges", _no_new_privileges)
        apply("capabilities dropped", kernel.drop_capabilities)
        apply("seccomp", lambda: kernel.seccomp(_engine_rules(alone=self.alone)))
        return self._parts.seal()


def _may_administrate() -> bool:
    cap_sys_admin, cap_net_admin = 1 << 21, 1 << 12
    needed = cap_sys_admin | cap_net_admin
    return evidence()[0].capabilities & needed == needed


def _new_user_namespace() -> None:
    user, group = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _new_network() -> None:
    kernel.unshare(kernel.CLONE_NEWNET)
    get_flags, set_flags, up = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = fcntl.ioctl(control, get_flags, struct.pack("16sh14x", b"lo", 0))
        (flags,) = struct.unpack_from("h", request, 16)
        fcntl.ioctl(control, set_flags, struct.pack("16sh14x", b"lo", flags | up))


def _new_mounts() -> None:
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)


def covered() -> list[Path]:
    """The folders of this host that an engine sees empty."""
    outer = [folder for folder in Path("/").iterdir() if folder.name not in SHOWN]
    inner = map(Path, HIDDEN_INSIDE)
    return [folder for folder in sorted([*outer, *inner]) if folder.is_dir() and not folder.is_symlink()]


def _hide(hidden: list[Path], kept: set[Path]) -> None:
    # Sorted: an outer folder is bound before one inside it, which it would cover.
    handles = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in sorted(kept)]
    var_run = Path("/var/run")
    was_link = var_run.is_symlink()
    for folder in hidden:
        mode = f"mode={stat.S_IMODE(folder.stat().st_mode):o}"
        kernel.mount("tmpfs", str(folder), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, mode)
    if was_link:
        var_run.symlink_to("/run")
    for path, handle in handles:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            path.mkdir(parents=True, exist_ok=True)
        elif not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        kernel.mount(f"/proc/self/fd/{handle}", str(path), None, kernel.MS_BIND | kernel.MS_REC)
        os.close(handle)


def _protect(hidden: list[Path], writable: set[Path]) -> None:
    kernel.make_read_only("/")
    for path in {*hidden, *writable}:
        if path.is_mount() or path in writable:
            kernel.make_writable(str(path))


def _fresh_proc() -> None:
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)


def evidence(pid: int | None = None) -> list[ThreadEvidence]:
    """What /proc tells of each thread of `pid`, or of this process, ascending.

    Raises FileNotFoundError when it is gone. A sealed process can't see another's network namespace.
    """
    # "self" is right also where /proc belongs to another process namespace and counts otherwise.
    tasks = Path("/proc", str(pid or "self"), "task")
    threads = sorted(int(folder.name) for folder in tasks.iterdir())
    found = []
    for thread in threads:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended since the listing
            found.append(_thread_evidence(tasks / str(thread)))
    return found


def _thread_evidence(folder: Path) -> ThreadEvidence:
    lines = (folder / "status").read_text().splitlines()
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    try:
        network: int | None = (folder / "ns/net").stat().st_ino
    except PermissionError:
        network = None
    return ThreadEvidence(
        thread=int(folder.name),
        seccomp=int(fields["Seccomp"]),
        no_new_privileges=int(fields["NoNewPrivs"]),
        capabilities=int(fields["CapEff"], 16),
        network=network,
    )


def as_json(seal: Seal, threads: list[ThreadEvidence]) -> dict[str, Any]:
    """`seal` and its evidence as JSON values."""
    return {**asdict(seal), "evidence": [asdict(thread) for thread in threads]}
