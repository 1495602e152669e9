"""The Linux calls that Python's standard library lacks, for x86-64 and arm64.

Every function raises OSError with the kernel's errno. Numbers are from linux/prctl.h,
linux/landlock.h, linux/seccomp.h, linux/mount.h and the two architectures' unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000

PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47

LANDLOCK_BIND_TCP, LANDLOCK_CONNECT_TCP = 1, 2
LANDLOCK_ABSTRACT_UNIX, LANDLOCK_SIGNAL = 1, 2

_X86 = {
    "ioctl": 16, "socket": 41, "connect": 42, "sendto": 44, "sendmsg": 46, "bind": 49, "listen": 50, "socketpair": 53,
    "setsockopt": 54, "clone": 56, "fork": 57, "vfork": 58, "execve": 59, "ptrace": 101, "capget": 125, "capset": 126,
    "add_key": 248, "request_key": 249, "keyctl": 250, "sendmmsg": 307, "process_vm_readv": 310,
    "process_vm_writev": 311, "kcmp": 312, "prlimit64": 302, "seccomp": 317, "execveat": 322,
}  # fmt: skip
_ARM = {
    "ioctl": 29, "capget": 90, "capset": 91, "ptrace": 117, "socket": 198, "socketpair": 199, "bind": 200,
    "listen": 201, "connect": 203, "sendto": 206, "setsockopt": 208, "sendmsg": 211, "add_key": 217,
    "request_key": 218, "keyctl": 219, "clone": 220, "execve": 221, "sendmmsg": 269, "process_vm_readv": 270,
    "process_vm_writev": 271, "kcmp": 272, "prlimit64": 261, "seccomp": 277, "execveat": 281,
}  # fmt: skip
_BOTH = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "clone3": 435, "openat2": 437,
    "pidfd_getfd": 438, "mount_setattr": 442, "landlock_create_ruleset": 444, "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}  # fmt: skip
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000


def _machine() -> str:
    machine = os.uname().machine
    if machine not in _AUDIT_ARCH or ctypes.sizeof(ctypes.c_void_p) != 8:
        raise OSError(errno.ENOSYS, f"no system call table for {machine}")
    return machine


def number(name: str) -> int:
    """The system call `name`'s number on this machine."""
    return _numbers()[name]


def has(name: str) -> bool:
    """Whether this machine has the system call `name` at all: arm64 lacks some of the older ones."""
    return name in _numbers()


def _numbers() -> dict[str, int]:
    return (_X86 if _machine() == "x86_64" else _ARM) | _BOTH


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _syscall(name: str, *arguments: object) -> int:
    return _checked(_libc().syscall(ctypes.c_long(number(name)), *arguments))


def network_cookie(of: socket.socket) -> bytes:
    """The mark of a socket's network namespace, which everyone may read and nobody can turn into its number."""
    return of.getsockopt(socket.SOL_SOCKET, 71, 8)  # SO_NETNS_COOKIE


def prctl(option: int, *arguments: int | ctypes.Array[ctypes.c_char]) -> int:
    """prctl(2), missing arguments sent as 0."""
    wide = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in arguments]
    wide += [ctypes.c_ulong(0)] * (4 - len(wide))
    return _checked(_libc().prctl(option, *wide))


def die_with_parent(parent: int, signum: int) -> None:
    """Have the kernel send this process `signum` when `parent` ends; exit now if it has already.

    Holds until the next change of credentials. The parent is, to the kernel, the thread that forked.
    """
    prctl(PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)


def unshare(flags: int) -> None:
    """Leave the namespaces named by CLONE_NEW* `flags`; NEWPID takes effect for children."""
    _checked(_libc().unshare(flags))


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    kind_bytes = kind.encode() if kind else None
    data_bytes = data.encode() if data else None
    _checked(_libc().mount(os.fsencode(source), os.fsencode(target), kind_bytes, ctypes.c_ulong(flags), data_bytes))


_HERE, _RECURSIVE, _READ_ONLY = -100, 0x8000, 1


def make_read_only(target: str) -> None:
    """Make the mount at `target` and all mounts below it read-only (Linux 5.12)."""
    _set_mount(target, _RECURSIVE, set_bits=_READ_ONLY, clear_bits=0)


def make_writable(target: str) -> None:
    """Undo `make_read_only` for the one mount at `target`."""
    _set_mount(target, 0, set_bits=0, clear_bits=_READ_ONLY)


def _set_mount(target: str, flags: int, *, set_bits: int, clear_bits: int) -> None:
    attributes = struct.pack("=QQQQ", set_bits, clear_bits, 0, 0)
    _syscall("mount_setattr", _HERE, os.fsencode(target), flags, attributes, ctypes.c_size_t(32))


def open_beneath(folder: int, path: str, flags: int, mode: int = 0) -> int:
    """openat2(2): open `path` below the open `folder`, through no symbolic link anywhere (Linux 5.6)."""
    beneath, no_symlinks = 0x08, 0x04
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, beneath | no_symlinks)
    return _syscall("openat2", folder, os.fsencode(path), how, ctypes.c_size_t(len(how)))


def capabilities() -> int:
    """The effective capabilities of this thread, one bit each."""
    header, sets = struct.pack("=Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    _syscall("capget", header, sets)
    low, _, _, high, _, _ = struct.unpack("=6I", sets.raw)
    return int(low | high << 32)


def drop_capabilities() -> None:
    """Empty every capability set of this thread; as root, children can't regain one by exec."""
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for capability in range(last + 1):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except PermissionError:  # without CAP_SETPCAP: no_new_privs bounds it instead
            break
    prctl(PR_CAP_AMBIENT, 4)  # PR_CAP_AMBIENT_CLEAR_ALL
    _syscall("capset", struct.pack("=Ii", 0x20080522, 0), bytes(24))


def share_descriptors(one: int, other: int) -> bool:
    """Whether two threads have the same table of open descriptors."""
    kcmp_files = 2
    return _syscall("kcmp", one, other, kcmp_files, 0, 0) == 0


def take_descriptor(pid: int, descriptor: int) -> int:
    """A duplicate of another process's open descriptor, which stays as it is."""
    handle = os.pidfd_open(pid)
    try:
        return _syscall("pidfd_getfd", handle, descriptor, 0)
    finally:
        os.close(handle)


def landlock_version() -> int:
    """The Landlock ABI this kernel offers: 4 brings TCP rules (6.7), 6 scopes (6.12)."""
    return _syscall("landlock_create_ruleset", None, ctypes.c_size_t(0), 1)


def landlock_deny(*, net: int = 0, scoped: int = 0, but_connect_to: Iterable[int] = ()) -> None:
    """Deny the rights `net` (LANDLOCK_*_TCP) and `scoped` to this thread and its children for good.

    TCP ports in `but_connect_to` can still be connected to, at any address. Denied in any case: every mount, every
    block device, and looking into a process that isn't under the same denial.
    """
    path_beneath, net_port = 1, 2
    make_block, refer = 1 << 11, 1 << 13
    attributes = struct.pack("=QQQ", make_block | refer, net, scoped)
    ruleset = _syscall("landlock_create_ruleset", attributes, ctypes.c_size_t(len(attributes)), 0)
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        # To move files from folder to folder. Unless each denial allows it, Landlock denies it unasked.
        _syscall("landlock_add_rule", ruleset, path_beneath, struct.pack("=Qi", refer, root), 0)
        for port in but_connect_to:
            _syscall("landlock_add_rule", ruleset, net_port, struct.pack("=QQ", LANDLOCK_CONNECT_TCP, port), 0)
        _syscall("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(root)
        os.close(ruleset)


# Classic BPF as seccomp runs it: struct sock_filter {u16 code; u8 jump_true, jump_false; u32 k} over
# struct seccomp_data {u32 nr; u32 arch; u64 instruction_pointer; u64 args[6]}. Every argument
# looked at is an int to the kernel, so its low word decides.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW = struct.pack("=HBBI", _RETURN, 0, 0, 0x7FFF0000)
_REFUSE = struct.pack("=HBBI", _RETURN, 0, 0, 0x00050000 | errno.EPERM)


def _step(code: int, k: int, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, true, false, k)


_NEXT = _step(_LOAD, 0)
"""Back to the system call's number, for the rules that follow: any of them may refuse."""


def _argument(index: int) -> bytes:
    return _step(_LOAD, 16 + 8 * index)


def _when(call: str, *body: bytes) -> bytes:
    return _step(_EQUAL, number(call), 0, len(body)) + b"".join(body)


def never(call: str) -> bytes:
    """Rule: `call` is refused."""
    return _when(call, _REFUSE)


def only(call: str, allowed: dict[int, tuple[int, ...]]) -> bytes:
    """Rule: `call` passes only when each argument in `allowed` (index to values) is one of its values."""
    tests: list[bytes] = []
    for index, values in allowed.items():
        matches = [_step(_EQUAL, value, len(values) - at) for at, value in enumerate(values)]
        tests += [_argument(index), *matches, _REFUSE]
    return _when(call, *tests, _NEXT)


def without(call: str, index: int, bits: int) -> bytes:
    """Rule: `call` is refused when argument `index` has any of `bits`."""
    return _when(call, _argument(index), _step(_ANY_BIT, bits, 0, 1), _REFUSE, _NEXT)


def unless(call: str, where: dict[int, int]) -> bytes:
    """Rule: `call` is refused when every argument in `where` (index to value) is equal."""
    tests: list[bytes] = []
    for following, (index, value) in zip(reversed(range(len(where))), where.items(), strict=True):
        tests += [_argument(index), _step(_EQUAL, value, 0, 2 * following + 1)]
    return _when(call, *tests, _REFUSE, _NEXT)


def assembled(rules: list[bytes]) -> bytes:
    """The filter's program, 8 bytes an instruction: each rule in turn, and what no rule names passes.

    Foreign architectures (int 0x80, AArch32) and x32, whose numbers mean other calls, are refused.
    """
    machine = _machine()
    program = [_step(_LOAD, 4), _step(_EQUAL, _AUDIT_ARCH[machine], 1), _REFUSE, _step(_LOAD, 0)]
    if machine == "x86_64":
        program += [_step(_AT_LEAST, _X32_BIT, 0, 1), _REFUSE]
    return b"".join([*program, *rules, _ALLOW])


def seccomp(rules: list[bytes], *, every_thread: bool = False) -> None:
    """Install a filter of `rules` over this thread and its children, or over every thread of this process.

    Needs no_new_privs or CAP_SYS_ADMIN. Raises OSError also where a thread runs under other filters than this one.
    """
    mode_filter, synchronize = 1, 1
    code = assembled(rules)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("=H6xQ", len(code) // 8, ctypes.addressof(buffer))
    program = ctypes.create_string_buffer(header, len(header))
    if _syscall("seccomp", mode_filter, synchronize if every_thread else 0, program):
        raise OSError(errno.ESRCH, "a thread could not be brought under the filter")
