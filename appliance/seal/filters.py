"""Which system calls each kind of process is refused. Everything else passes: namespaces and Landlock do the rest."""

from __future__ import annotations

import socket

from appliance.seal import kernel

_NEVER = (
    # io_uring opens and connects sockets without passing a seccomp filter.
    *("io_uring_setup", "io_uring_enter", "io_uring_register"),
    # A key of type dns_resolver makes the kernel run a resolver outside every seal.
    *("add_key", "request_key", "keyctl"),
)
_BORROW = ("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd")
_FAST_OPEN = 0x20000000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_TCP_ULP = 31
_NEW_LISTENER = 1 << 3
_IP_OPTIONS, _IPV6_ROUTING_HEADER = 4, 57
_TYPE_FLAGS = (0, socket.SOCK_CLOEXEC, socket.SOCK_NONBLOCK, socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
_STREAMS = tuple(socket.SOCK_STREAM | flags for flags in _TYPE_FLAGS)
_DATAGRAMS = tuple(socket.SOCK_DGRAM | flags for flags in _TYPE_FLAGS)


def _everyone() -> list[bytes]:
    return [
        *map(kernel.never, _NEVER),
        # Types commands into the terminal it was started from, or pastes them there.
        kernel.unless("ioctl", {1: _TIOCSTI}),
        kernel.unless("ioctl", {1: _TIOCLINUX}),
        # A filter's listener lets whoever holds it put a descriptor of his into the filtered process: an engine
        # would get a caller's connection by it, which may not be sent.
        kernel.without("seccomp", 1, _NEW_LISTENER),
        # Only its own limits: another process of the same user would end by a lowered one.
        kernel.only("prlimit64", {0: (0,)}),
    ]


def gateway() -> list[bytes]:
    """Rules of a process that accepts and never connects."""
    return [
        *_everyone(),
        *map(kernel.never, _BORROW),
        # Not datagrams: they are sent to a path without a connect.
        kernel.only("socket", {0: (socket.AF_UNIX,), 1: _STREAMS}),
        kernel.only("socketpair", {0: (socket.AF_UNIX,), 1: _STREAMS}),
        # Fast Open connects inside a send, where Landlock doesn't look.
        kernel.without("sendto", 3, _FAST_OPEN),
        # Fast Open again; and a connection of a caller's, handed to an engine by these, could there be
        # disconnected and led elsewhere: engines may connect, and the socket brings its own network along.
        kernel.never("sendmsg"),
        kernel.never("sendmmsg"),
        # An option of IP says by which stations packets travel, and so where they really go.
        kernel.only("setsockopt", {1: (socket.SOL_SOCKET, socket.IPPROTO_TCP)}),
        # The "smc" layer turns a TCP socket into one of a family that Landlock doesn't know.
        kernel.unless("setsockopt", {1: socket.IPPROTO_TCP, 2: _TCP_ULP}),
    ]


def detector() -> list[bytes]:
    """Rules of a process that computes, beside those of the gateway's that it has inherited."""
    calls = (
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
    )
    return [kernel.never(call) for call in calls if kernel.has(call)]


def dialler() -> list[bytes]:
    """Rules of the one process that connects. It looks names up by plain DNS: no Unix socket, no netlink."""
    return [
        *_everyone(),
        *map(kernel.never, _BORROW),
        kernel.only(
            "socket",
            {
                0: (socket.AF_INET, socket.AF_INET6),
                1: (*_STREAMS, *_DATAGRAMS),
                2: (0, socket.IPPROTO_TCP, socket.IPPROTO_UDP),  # not MPTCP, which Landlock doesn't know
            },
        ),
        kernel.only("socketpair", {0: (socket.AF_UNIX,), 1: _STREAMS}),
        # Landlock refuses to bind TCP; listening without it takes any free port.
        kernel.never("bind"),
        kernel.never("listen"),
        # It hands its connections on by sendmsg, and the resolver asks by sendmmsg.
        kernel.without("sendto", 3, _FAST_OPEN),
        kernel.without("sendmsg", 2, _FAST_OPEN),
        kernel.without("sendmmsg", 3, _FAST_OPEN),
        kernel.unless("setsockopt", {1: socket.IPPROTO_TCP, 2: _TCP_ULP}),
        kernel.unless("setsockopt", {1: socket.IPPROTO_IP, 2: _IP_OPTIONS}),
        kernel.unless("setsockopt", {1: socket.IPPROTO_IPV6, 2: _IPV6_ROUTING_HEADER}),
    ]


def engine(*, alone: bool) -> list[bytes]:
    """Rules of an engine. `alone`: it has a process namespace of its own."""
    families = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
    # CUDA shares memory between an engine's own processes through these calls; they reach a
    # stranger's sockets only where the engine isn't alone in its process namespace.
    borrow = [] if alone else [kernel.never(call) for call in _BORROW]
    return [
        *_everyone(),
        *borrow,
        kernel.only("socket", {0: families}),
        kernel.only("socketpair", {0: families}),
    ]
