"""Every open socket of a process, by the kernel's tables; and what of the host a sealed process could reach.

A socket's protocol is what the kernel noted when it was made. The tables alone would not do: the parts of an MPTCP
socket stand among the TCP ones under its own number, and a Unix socket's name may hold a line that looks like another.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import socket
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from appliance.addresses import with_port
from appliance.egress import mounts
from appliance.egress.findings import SEALED, HostSocket, Network, Process, Socket
from appliance.seal import kernel
from appliance.seal.evidence import ThreadEvidence, process_ids, running_threads

FAMILIES = {
    "TCP": "tcp", "TCPv6": "tcp6", "UDP": "udp", "UDPv6": "udp6", "UDP-Lite": "udplite", "UDPLITEv6": "udplite6",
    "RAW": "raw", "RAWv6": "raw6", "PING": "icmp", "PINGv6": "icmp6", "PACKET": "packet", "NETLINK": "netlink",
    "UNIX": "unix", "UNIX-STREAM": "unix",
}  # fmt: skip
"""The kernel's name of a protocol, and its table."""
UNKNOWN = "unknown"
_TABLES = tuple(dict.fromkeys(FAMILIES.values()))
"""Those that change most, first."""
_STATES = {1: "established", 7: "unconnected", 10: "listening", **dict.fromkeys((4, 5, 8, 9, 11), "closing")}
_LISTENS = 0x10000
_SIOCGSKNS = 0x894C
_Rows = Mapping[tuple[str, int], tuple[int, list[str]]]
"""Namespace and fields of every socket in the kernel's tables, by family and inode."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A socket in a process's table of descriptors. `path` leads to it in /proc."""

    path: Path
    pid: int
    descriptor: int
    inode: int
    protocol: str
    waiting: int


@dataclass(frozen=True, slots=True)
class _Row:
    """A socket in a table of the kernel's."""

    namespace: int | None
    state: str
    local: str = ""
    remote: str = ""


def opened(threads: Mapping[int, Sequence[ThreadEvidence]], trouble: list[str]) -> dict[int, list[Socket]]:
    """The open sockets of each process, given the threads of each; a process that has ended is left out."""
    folders = {_inode("/proc/thread-self/ns/net"): "/proc/thread-self/net"}
    for pid, of_process in threads.items():
        for thread in of_process:
            if thread.network is not None:
                folders.setdefault(thread.network, f"/proc/{pid}/task/{thread.thread}/net")
    before = _rows(folders, reversed(_TABLES))
    held: dict[int, list[_Held]] = {}
    for pid, of_process in threads.items():
        try:
            listed = _listed(pid, [thread.thread for thread in of_process])
        except PermissionError:
            listed = [] if running_threads(pid) else None
            if listed is not None:
                trouble.append(f"process {pid}: its open descriptors may not be read; verify as root, or as its user")
        if listed is not None:
            held[pid] = listed
    # What was closed since it was listed is in the tables of before, what was opened since then in those of after.
    rows = before | _rows(folders, _TABLES)
    if any(_key(each) not in rows and _is_open(each) for of_process in held.values() for each in of_process):
        rows |= _rows(folders | _elsewhere(folders.values()), _TABLES)
    return {
        pid: [made for each in of_process if (made := _socket(each, rows, of_process))]
        for pid, of_process in held.items()
    }


def _elsewhere(known: Iterable[str]) -> dict[int, str]:
    """The networks of this host beside the `known` ones, in which nothing here lives: a passed socket may be of one.

    The number of such a namespace may be hidden; then that of its table stands for it, which nothing else has.
    """
    tables = {_readable_inode(f"{folder}/unix") for folder in known} | {None}
    found = {}
    for pid in process_ids():
        table = _readable_inode(f"/proc/{pid}/net/unix")  # each namespace has files of its own
        if table is not None and table not in tables:
            tables.add(table)
            found[_readable_inode(f"/proc/{pid}/ns/net") or table] = f"/proc/{pid}/net"
    return found


def _listed(pid: int, threads: list[int]) -> list[_Held] | None:
    """The sockets of a process; None when it has ended."""
    while threads:
        try:
            return list(_held(pid, threads))
        except (FileNotFoundError, ProcessLookupError):  # one of the threads has ended, or all
            threads = [thread.thread for thread in running_threads(pid)]
    return None


def _held(pid: int, threads: list[int]) -> Iterator[_Held]:
    for thread in mounts.tables(threads):
        for path in Path(f"/proc/{pid}/task/{thread}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since the listing
                while (target := str(path.readlink())).startswith("socket:["):
                    each = _Held(path, pid, int(path.name), int(target[8:-1]), _protocol(path), _waiting(path))
                    if _is_open(each):  # else its number means another by now, whose protocol that was
                        yield each
                        break


def _protocol(path: Path) -> str:
    try:
        return os.getxattr(path, "system.sockprotoname").rstrip(b"\0").decode(errors="replace")
    except FileNotFoundError:
        raise
    except OSError:
        return UNKNOWN


def _waiting(path: Path) -> int:
    """How many descriptors wait in a Unix socket to be taken (Linux 5.8)."""
    for line in (path.parents[1] / "fdinfo" / path.name).read_text().splitlines():
        if line.startswith("scm_fds:"):
            return int(line.removeprefix("scm_fds:"))
    return 0


def _is_open(each: _Held) -> bool:
    with contextlib.suppress(OSError):
        return str(each.path.readlink()) == f"socket:[{each.inode}]"
    return False


def _socket(each: _Held, rows: _Rows, beside: Iterable[_Held]) -> Socket | None:
    family = FAMILIES.get(each.protocol)
    if family is None:
        return Socket(each.descriptor, each.inode, UNKNOWN, None, each.protocol, "", "")
    found = rows.get(_key(each))
    if found is None and not _is_open(each):
        return None
    row = _row(family, *found) if found else _asked(each, rows, beside)
    return Socket(each.descriptor, each.inode, family, row.namespace, row.state, row.local, row.remote, each.waiting)


def _asked(each: _Held, rows: _Rows, beside: Iterable[_Held]) -> _Row:
    """What a socket that no table holds says of itself: it was just made, its peer has reset it, or it is foreign."""
    try:
        with socket.socket(fileno=kernel.take_descriptor(each.pid, each.descriptor)) as same:
            if os.fstat(same.fileno()).st_ino == each.inode:
                local = same.getsockname() if same.family in (socket.AF_INET, socket.AF_INET6) else ("", 0)
                network = _network_of(same) or _shared_network(same, _key(each)[0], rows, beside)
                return _Row(network, "unconnected", with_port(local[0], local[1]) if local[1] else "")
    except OSError:  # this user may not
        pass
    return _Row(None, "unconnected")


def _shared_network(same: socket.socket, family: str, rows: _Rows, beside: Iterable[_Held]) -> int | None:
    """The namespace of a socket `beside`, of the same family and process, that a table told, and that is of the same.

    So a connection of a passed listener's is told, also where its namespace may not be asked for.
    """
    for other in beside:
        found = rows.get(_key(other))
        if found is None or _key(other)[0] != family:
            continue
        with (
            contextlib.suppress(OSError),  # closed meanwhile
            socket.socket(fileno=kernel.take_descriptor(other.pid, other.descriptor)) as taken,
        ):
            if os.fstat(taken.fileno()).st_ino == other.inode and kernel.network_cookie(taken) == kernel.network_cookie(
                same
            ):
                return found[0]
    return None


def _network_of(same: socket.socket) -> int | None:
    with contextlib.suppress(OSError):  # one has to be privileged in that namespace
        namespace = fcntl.ioctl(same, _SIOCGSKNS)
        try:
            return os.fstat(namespace).st_ino
        finally:
            os.close(namespace)
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as own:
        if kernel.network_cookie(own) == kernel.network_cookie(same):
            return _inode("/proc/thread-self/ns/net")
    return None


def _key(each: _Held) -> tuple[str, int]:
    return FAMILIES.get(each.protocol, UNKNOWN), each.inode


def _rows(folders: Mapping[int, str], families: Iterable[str]) -> dict[tuple[str, int], tuple[int, list[str]]]:
    """The sockets in the tables of some families, by the number of the namespace that each of `folders` shows."""
    return {
        (family, inode): (namespace, fields)
        for family in families
        for namespace, folder in folders.items()
        for inode, fields in _table(Path(folder, family), family)
    }


def _table(path: Path, family: str) -> Iterator[tuple[int, list[str]]]:
    """Inode and fields of each line. Of a family that the kernel doesn't have there is no table."""
    column = {"unix": 6, "packet": 8}.get(family, 9)
    try:
        lines = path.read_text(errors="surrogateescape").split("\n")[1:]
    except OSError:  # no such table, or the process has ended
        return
    for line in lines:
        fields = line.split(None, 7) if family == "unix" else line.split()
        if len(fields) > column and fields[column].isdigit() and fields[column] != "0":  # 0: nobody's any more
            yield int(fields[column]), fields


def _row(family: str, namespace: int, fields: list[str]) -> _Row:
    if family == "unix":
        state = {1: "unconnected", 3: "established"}.get(int(fields[5], 16), str(int(fields[5], 16)))
        local = fields[7] if len(fields) > 7 else ""
        return _Row(namespace, "listening" if int(fields[3], 16) & _LISTENS else state, local)
    if family in ("netlink", "packet"):
        return _Row(namespace, "unconnected")
    number = int(fields[3], 16)
    return _Row(namespace, _STATES.get(number, str(number)), _endpoint(fields[1]), _endpoint(fields[2]))


def _endpoint(written: str) -> str:
    """An address of a table, `0100007F:1F90`, as people write it; empty for none."""
    address, port = written.split(":")
    words = struct.unpack(f"!{len(address) // 8}I", bytes.fromhex(address))
    packed = struct.pack(f"={len(words)}I", *words)
    if not any(packed) and port == "0000":
        return ""
    return with_port(str(ipaddress.ip_address(packed)), int(port, 16))


def _inode(path: str) -> int:
    return Path(path).stat().st_ino


def _readable_inode(path: str) -> int | None:
    """None where it may not be read, or is there no more."""
    with contextlib.suppress(OSError):
        return _inode(path)
    return None


def networks(processes: Sequence[Process], configured: Iterable[str] = ()) -> list[Network]:
    """The network namespaces in which sealed processes live; `configured` are Unix sockets that the config names."""
    held = {each.inode for process in processes for each in process.sockets}
    named = set(map(os.path.realpath, configured))
    found: dict[int, Network] = {}
    for process in processes:
        inode = process.namespaces.get("net")
        if process.role not in SEALED or inode is None or inode in found:
            continue
        folder = Path(mounts.thread_folder(process), "net")
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            met = set() if process.place.startswith("engine ") else named
            strangers = _strangers(inode, folder, held, met)
            found[inode] = Network(inode, process.place, _interfaces(folder), _routes(folder), strangers)
    return list(found.values())


def _strangers(network: int, folder: Path, held: Set[int], named: Set[str]) -> list[str]:
    """The sockets of a sealed network that aren't `held`, with who holds them.

    Who lives there was looked at, or has opened it since. Where a service of this host answers at a path that is
    `named`, its end of the connection belongs to the network of who called, too.
    """
    unknown = _alive(folder) - held
    owners = _owners(unknown) if unknown else {}
    there = {inode for inode, (pid, _) in owners.items() if _readable_inode(f"/proc/{pid}/ns/net") == network}
    left = unknown - there
    if left:  # in this order: one that ends between the two looks is none that is left
        left -= _accepted(folder, owners, named)
        left &= _alive(folder)
    return sorted({owners.get(inode, (0, "nobody"))[1] for inode in left})


def _alive(folder: Path) -> set[int]:
    """Inodes in all tables of a network, but for the kernel's own netlink sockets."""
    return {inode for family, inode, fields in _all(folder) if family != "netlink" or fields[2] != "0"}


def _accepted(folder: Path, owners: Mapping[int, tuple[int, str]], named: Set[str]) -> set[int]:
    """Inodes of connections that were accepted at a path of `named`.

    None that stands in the tables twice: a name may hold a line that looks like another's.
    """
    rows = list(_all(folder)) if named else []
    times = Counter(inode for _, inode, _ in rows)
    paths = {
        inode: fields[7]
        for family, inode, fields in rows
        if family == "unix" and len(fields) > 7 and times[inode] == 1 and not int(fields[3], 16) & _LISTENS
    }
    return {
        inode
        for inode, path in paths.items()
        if any(file.path in named for file in mounts.locate(path, owners[inode][0] if inode in owners else None))
    }


def _all(folder: Path) -> Iterator[tuple[str, int, list[str]]]:
    """Family, inode and fields of all that stands in the tables of a network."""
    return ((family, *row) for family in _TABLES for row in _table(folder / family, family))


def _interfaces(folder: Path) -> dict[str, int]:
    lines = (folder / "dev").read_text().splitlines()[2:]
    split = [line.rsplit(":", 1) for line in lines]
    return {name.strip(): int(counters.split()[8]) for name, counters in split}


def _routes(folder: Path) -> list[str]:
    found = []
    for name, column in (("route", 0), ("ipv6_route", -1)):
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
            for line in (folder / name).read_text().splitlines():
                interface = (line.split() or [""])[column]
                if interface not in ("", "Iface", "lo"):
                    found.append(f"{name}: {' '.join(line.split())}")
    return found


def sharers(processes: Sequence[Process]) -> list[str]:
    """Who else holds a socket at which the gateway listens, or a connection that it accepted.

    Whoever started the gateway may, and the first process: so a service manager passes a listener.
    """
    ours = {process.pid for process in processes} | {os.getpid()}  # this process asks sockets what they are
    gateways = [process for process in processes if process.role == "gateway"]
    ours |= {1, *(process.parent for process in gateways)}
    doors = {
        each.inode
        for process in gateways
        for each in process.sockets
        if each.state == "listening" or each.family in ("tcp", "tcp6")
    }
    return sorted({who for pid, who, _ in _holders(doors) if pid not in ours})


@dataclass(frozen=True, slots=True)
class _Listener:
    """A Unix socket that something on this host listens on, by a path."""

    inode: int
    path: str


def host_sockets(processes: Sequence[Process], configured: Iterable[str], trouble: list[str]) -> list[HostSocket]:
    """The Unix sockets that sealed processes can reach by a path and that aren't their own.

    An engine's own are those that its own processes hold; everyone else's are all of the appliance's.
    """
    holders: dict[int, set[str]] = {}
    for process in processes:
        for each in process.sockets:
            holders.setdefault(each.inode, set()).add(process.place)
    listeners = list(_listeners())
    owners = _owners({listener.inode for listener in listeners})
    views = list(mounts.views(processes, trouble))
    named = set(map(os.path.realpath, configured))
    found: set[HostSocket] = set()
    for listener in listeners:
        pid, who = owners.get(listener.inode, (None, ""))
        files = mounts.locate(listener.path, pid)
        for view in views:
            if not _own(view.place, holders.get(listener.inode, set())):
                found |= {
                    HostSocket(view.place, path, who, file.path in named) for file in files for path in view.paths(file)
                }
    return sorted(found, key=lambda each: (each.place, each.path))


def _own(place: str, holders: set[str]) -> bool:
    return place in holders if place.startswith("engine ") else bool(holders)


def _listeners() -> Iterator[_Listener]:
    """Of every network namespace on this host: a path leads from one to another."""
    tables = set()
    for pid in ["self", *process_ids()]:
        path = Path("/proc", str(pid), "net/unix")
        with contextlib.suppress(OSError):
            table = path.stat().st_ino  # each namespace has files of its own, and everyone may see that
            if table in tables:
                continue
            tables.add(table)
            for inode, fields in _table(path, "unix"):
                datagram = int(fields[4], 16) == socket.SOCK_DGRAM
                if len(fields) > 7 and fields[7][0] != "@" and (datagram or int(fields[3], 16) & _LISTENS):
                    yield _Listener(inode, fields[7])


def _owners(inodes: Set[int]) -> dict[int, tuple[int, str]]:
    """Who holds each socket, as far as this user may see: pid, and `name (pid)`."""
    found: dict[int, tuple[int, str]] = {}
    for pid, who, inode in _holders(inodes):
        found.setdefault(inode, (pid, who))
    return found


def _holders(inodes: Set[int]) -> Iterator[tuple[int, str, int]]:
    """Every holder of each socket, as far as this user may see: pid, `name (pid)`, and the inode."""
    targets = {f"socket:[{inode}]": inode for inode in inodes}
    for pid in process_ids():
        folder = Path("/proc", str(pid))
        with contextlib.suppress(OSError):
            for descriptor in (folder / "fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    inode = targets.get(str(descriptor.readlink()))
                    if inode is not None:
                        yield pid, f"{(folder / 'comm').read_text().strip()} ({pid})", inode
