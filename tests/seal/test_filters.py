"""What the filters decide, call by call, on both architectures: their programs run here, in an interpreter of BPF.

The kernel's own run of them is in test_seal.py; it can only be had for the architecture that we are on.
"""

from __future__ import annotations

import socket
import struct

import pytest

from appliance.seal import filters, kernel

ALLOWED, REFUSED = 0x7FFF0000, 0x00050001
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# From the kernel's tables (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h).
NUMBERS = {
    "x86_64": {
        "ioctl": 16, "socket": 41, "connect": 42, "sendto": 44, "sendmsg": 46, "socketpair": 53, "setsockopt": 54,
        "ptrace": 101, "add_key": 248, "request_key": 249, "keyctl": 250, "sendmmsg": 307, "process_vm_readv": 310,
        "process_vm_writev": 311, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
        "pidfd_getfd": 438, "bind": 49, "listen": 50, "clone": 56, "fork": 57, "vfork": 58, "execve": 59,
        "execveat": 322, "clone3": 435, "read": 0, "mmap": 9, "exit_group": 231,
    },
    "aarch64": {
        "ioctl": 29, "ptrace": 117, "socket": 198, "socketpair": 199, "connect": 203, "sendto": 206, "setsockopt": 208,
        "sendmsg": 211, "add_key": 217, "request_key": 218, "keyctl": 219, "sendmmsg": 269, "process_vm_readv": 270,
        "process_vm_writev": 271, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
        "pidfd_getfd": 438, "bind": 200, "listen": 201, "clone": 220, "execve": 221, "execveat": 281, "clone3": 435,
        "read": 63, "mmap": 222, "exit_group": 94,
    },
}  # fmt: skip
ALWAYS = ("io_uring_setup", "io_uring_enter", "io_uring_register", "add_key", "request_key", "keyctl")
BORROWING = ("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd")
STREAM, DATAGRAM, NON_BLOCKING, CLOSED = 1, 2, 0x800, 0x80000
VSOCK, SMC, ALG, PACKET = 40, 43, 38, 17


def run(program: bytes, number: int, architecture: int, arguments: tuple[int, ...] = ()) -> int:
    """The verdict of a classic BPF program on struct seccomp_data, as kernel/seccomp.c runs it."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    accumulator = at = 0
    while True:
        code, true, false, k = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, k)
            case 0x15:
                at += true if accumulator == k else false
            case 0x35:
                at += true if accumulator >= k else false
            case 0x45:
                at += true if accumulator & k else false
            case 0x06:
                return int(k)
            case other:
                raise AssertionError(f"an instruction that we never write: {other:#x}")


class Machine:
    def __init__(self, name: str) -> None:
        self.name = name
        self.gateway = kernel.assembled(filters.gateway())
        self.engine = kernel.assembled(filters.engine(alone=True))
        self.detector = kernel.assembled(filters.detector())
        self.crowded = kernel.assembled(filters.engine(alone=False))

    def passes(self, program: bytes, call: str, *arguments: int) -> bool:
        verdict = run(program, NUMBERS[self.name][call], ARCHITECTURES[self.name], arguments)
        assert verdict in (ALLOWED, REFUSED)
        return verdict == ALLOWED


@pytest.fixture(params=ARCHITECTURES)
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(kernel, "_machine", lambda: request.param)
    return Machine(request.param)


def test_a_gateway_opens_nothing_but_unix_streams(machine: Machine) -> None:
    for call in ("socket", "socketpair"):
        for family in range(50):
            for kind in (STREAM, STREAM | CLOSED, STREAM | NON_BLOCKING | CLOSED):
                assert machine.passes(machine.gateway, call, family, kind) == (family == socket.AF_UNIX)
    for kind in (DATAGRAM, DATAGRAM | CLOSED, 5, 3):
        assert not machine.passes(machine.gateway, "socket", socket.AF_UNIX, kind)


def test_a_gateway_sends_only_what_cannot_connect_or_carry_a_descriptor(machine: Machine) -> None:
    assert machine.passes(machine.gateway, "sendto", 3, 0, 0, 0x4000)
    assert not machine.passes(machine.gateway, "sendto", 3, 0, 0, 0x20000000)
    assert not machine.passes(machine.gateway, "sendto", 3, 0, 0, 0x20004000)
    assert not machine.passes(machine.gateway, "sendmsg")
    assert not machine.passes(machine.gateway, "sendmmsg")
    assert not machine.passes(machine.gateway, "setsockopt", 3, socket.IPPROTO_TCP, 31)
    assert machine.passes(machine.gateway, "setsockopt", 3, socket.IPPROTO_TCP, 1)
    assert machine.passes(machine.gateway, "setsockopt", 3, 1, 31)


def test_an_engine_opens_four_families(machine: Machine) -> None:
    for program in (machine.engine, machine.crowded):
        opened = {family for family in range(50) if machine.passes(program, "socket", family, STREAM)}
        assert opened == {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK}
        assert not opened & {VSOCK, SMC, ALG, PACKET}
        assert machine.passes(program, "sendmsg")


def test_a_detector_starts_nothing_and_opens_no_socket(machine: Machine) -> None:
    calls = {
        "clone",
        "clone3",
        "fork",
        "vfork",
        "execve",
        "execveat",
        "socket",
        "socketpair",
        "connect",
        "bind",
        "listen",
    }
    for call in calls & NUMBERS[machine.name].keys():
        assert not machine.passes(machine.detector, call)
    for call in ("read", "mmap", "sendto", "exit_group"):
        assert machine.passes(machine.detector, call)


def test_what_no_one_may_do_no_filter_lets_through(machine: Machine) -> None:
    for program in (machine.gateway, machine.engine, machine.crowded):
        for call in ALWAYS:
            assert not machine.passes(program, call)
        assert not machine.passes(program, "ioctl", 0, 0x5412)
        assert machine.passes(program, "ioctl", 0, 0x5413)
        assert machine.passes(program, "connect")


def test_borrowing_from_others_ends_where_there_are_others(machine: Machine) -> None:
    for call in BORROWING:
        assert not machine.passes(machine.gateway, call)
        assert not machine.passes(machine.crowded, call)
        assert machine.passes(machine.engine, call)


def test_calls_by_another_table_are_refused(machine: Machine) -> None:
    harmless = 20  # a number without a rule
    ours = ARCHITECTURES[machine.name]
    others = {0x40000003, 0x40000028, 0xC0000015} | set(ARCHITECTURES.values()) - {ours}
    for program in (machine.gateway, machine.engine):
        assert run(program, harmless, ours) == ALLOWED
        for architecture in others:
            assert run(program, harmless, architecture) == REFUSED
        if machine.name == "x86_64":
            assert run(program, 0x40000000 | harmless, ours) == REFUSED
