"""Every open socket is found and told for what it is, and so is all that a sealed process could ask to send."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.egress import mounts, sockets
from appliance.egress.findings import HostSocket, Mount, Socket
from appliance.seal import kernel
from appliance.seal.evidence import evidence
from tests.egress.little import PLACE, ROOT, Little, daemon, started_by
from tests.fakes.house import until

HOST = Path("/proc/self/ns/net").stat().st_ino
MPTCP = 262


def mine() -> dict[int, Socket]:
    """This process's sockets by descriptor."""
    trouble: list[str] = []
    (found,) = sockets.opened({os.getpid(): evidence()}, trouble).values()
    assert trouble == []
    return {each.descriptor: each for each in found}


@contextlib.contextmanager
def connected(protocol: int = 0) -> Iterator[tuple[socket.socket, socket.socket, socket.socket]]:
    """A listener on loopback, a connection that it accepted, and the caller's end of that."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol) as caller:
            caller.connect(listener.getsockname())
            with listener.accept()[0] as accepted:
                yield listener, accepted, caller


def said(each: Socket) -> tuple[str, int | None, str, str, str]:
    return each.family, each.namespace, each.state, each.local, each.remote


def test_tcp_connections_are_told_with_both_ends() -> None:
    with connected() as (listener, accepted, caller):
        here, there = (f"127.0.0.1:{port}" for port in (listener.getsockname()[1], caller.getsockname()[1]))
        found = mine()
        assert said(found[listener.fileno()]) == ("tcp", HOST, "listening", here, "")
        assert said(found[accepted.fileno()]) == ("tcp", HOST, "established", here, there)
        assert said(found[caller.fileno()]) == ("tcp", HOST, "established", there, here)
        caller.shutdown(socket.SHUT_WR)
        assert accepted.recv(1) == b""
        assert mine()[accepted.fileno()].state == "closing"


def test_other_families_are_told() -> None:
    with contextlib.ExitStack() as stack:
        made = {}
        for family, arguments in {
            "udp": (socket.AF_INET, socket.SOCK_DGRAM, 0),
            "udp6": (socket.AF_INET6, socket.SOCK_DGRAM, 0),
            "tcp6": (socket.AF_INET6, socket.SOCK_STREAM, 0),
            "netlink": (socket.AF_NETLINK, socket.SOCK_RAW, 0),
            "unix": (socket.AF_UNIX, socket.SOCK_STREAM, 0),
        }.items():
            made[family] = stack.enter_context(socket.socket(*arguments))
        made["udp"].bind(("127.0.0.1", 0))
        made["udp6"].bind(("::1", 0))
        made["netlink"].bind((0, 0))
        made["unix"].bind(f"\0appliance-test-{os.getpid()}")
        found = mine()
        assert {family: found[each.fileno()].family for family, each in made.items()} == {each: each for each in made}
        assert {found[each.fileno()].namespace for each in made.values()} == {HOST}
        assert found[made["udp6"].fileno()].local == f"[::1]:{made['udp6'].getsockname()[1]}"
        assert found[made["unix"].fileno()].local == f"@appliance-test-{os.getpid()}"


def test_a_unix_listener_is_told_by_its_path(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, daemon(Path(folder, "a b")) as listener:
        assert said(mine()[listener.fileno()]) == ("unix", HOST, "listening", f"{folder}/a b", "")


def test_a_socket_that_no_table_holds_yet_says_itself_what_it_is() -> None:
    with socket.socket() as fresh:
        assert said(mine()[fresh.fileno()]) == ("tcp", HOST, "unconnected", "", "")


def test_a_connection_that_its_peer_has_reset_still_tells_where_it_was_accepted() -> None:
    with connected() as (listener, accepted, caller):
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        caller.close()
        with pytest.raises(ConnectionResetError):
            accepted.recv(1)
        here = f"127.0.0.1:{listener.getsockname()[1]}"
        assert said(mine()[accepted.fileno()]) == ("tcp", HOST, "unconnected", here, "")


def test_what_has_no_table_of_its_own_is_unknown() -> None:
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP))]
        with contextlib.suppress(OSError):  # a kernel without it
            made.append(stack.enter_context(socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)))
        found = mine()
        for each in made:
            assert found[each.fileno()].family == "unknown"
            assert found[each.fileno()].state in ("MPTCP", "AF_VSOCK")


def test_mptcp_is_not_taken_for_tcp_though_its_number_stands_in_that_table() -> None:
    with connected(MPTCP) as ends:
        inodes = {str(os.fstat(each.fileno()).st_ino) for each in ends}
        assert inodes & {line.split()[9] for line in Path("/proc/self/net/tcp").read_text().splitlines()}
        found = mine()
        assert {found[each.fileno()].family for each in ends} == {"unknown"}


def test_a_name_that_looks_like_a_line_of_the_table_makes_nothing_known() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP) as hidden, socket.socket(socket.AF_UNIX) as forger:
        row = f"0000000000000000: 00000002 00000000 00000000 0001 01 {os.fstat(hidden.fileno()).st_ino} /x"
        forger.bind(f"\0\n{row}")
        assert f"\n{row}" in Path("/proc/self/net/unix").read_text()
        assert mine()[hidden.fileno()].family == "unknown"


HANDS_OUT = """
import socket, sys
door, foreign = socket.socket(fileno=int(sys.argv[1])), socket.socket(socket.AF_UNIX)
socket.send_fds(door, [b"."], [foreign.fileno()])
"""


def test_a_unix_socket_of_a_network_that_is_nobodys_here_is_not_taken_for_one_of_ours() -> None:
    ours, theirs = socket.socketpair()
    start = ["unshare", *(["--user"] if os.getuid() else []), "--net", sys.executable, "-c", HANDS_OUT]
    with ours, theirs:
        subprocess.run([*start, str(theirs.fileno())], pass_fds=[theirs.fileno()], check=True)
        _, (descriptor,), _, _ = socket.recv_fds(ours, 1, 1)
    try:
        found = mine()[descriptor]
        assert (found.family, found.state) == ("unix", "unconnected")
        assert found.namespace != HOST
    finally:
        os.close(descriptor)


def test_a_threads_own_table_of_descriptors_is_read_too() -> None:
    there, enough = threading.Event(), threading.Event()
    held: list[tuple[int, int]] = []

    def hold() -> None:
        clone_files = 0x400
        assert ctypes.CDLL(None).unshare(clone_files) == 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.bind(("127.0.0.1", 0))
            held.append((own.fileno(), os.fstat(own.fileno()).st_ino))
            there.set()
            enough.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert there.wait(20)
        (found,) = sockets.opened({os.getpid(): evidence()}, []).values()
        assert held[0] in [(each.descriptor, each.inode) for each in found if each.family == "udp"]
    finally:
        enough.set()
        thread.join()


def test_a_socket_from_before_the_seal_is_seen() -> None:
    before = "udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(('127.0.0.1', 0))"
    with Little(before=before) as little:
        (gateway,) = little.of("gateway")
        (udp,) = (each for each in gateway.sockets if each.family not in ("unix", "tcp"))
        assert (udp.family, udp.namespace) == ("udp", HOST)
        (public,) = (each for each in gateway.sockets if each.family == "tcp")
        assert said(public) == ("tcp", HOST, "listening", f"127.0.0.1:{little.port}", "")


TAKES = """
import socket, sys, signal
door = socket.socket(socket.AF_UNIX)
door.bind(sys.argv[1] + "/door")
door.listen()
guest, _ = door.accept()
kept = socket.recv_fds(guest, 1, 1)
guest.sendall(b".")
signal.pause()
"""


def test_a_socket_that_was_handed_to_an_engine_is_seen_to_be_the_hosts() -> None:
    with Little(engine=TAKES) as little, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        door = little.engine / "door"
        with socket.socket(socket.AF_UNIX) as caller:
            until(lambda: door.exists() and caller.connect_ex(str(door)) == 0)
            socket.send_fds(caller, [b"."], [udp.fileno()])
            assert caller.recv(1) == b"."
        inode = os.fstat(udp.fileno()).st_ino
        (found,) = (each for process in little.of("engine") for each in process.sockets if each.inode == inode)
        assert (found.family, found.namespace) == ("udp", HOST)


OPENS = """
import signal, socket
listener, bare = socket.create_server(("127.0.0.1", 8000)), socket.socket()
signal.pause()
"""


def test_a_socket_that_an_engine_has_opened_is_in_its_own_network() -> None:
    with Little(engine=OPENS) as little:
        held = until(lambda: (got := [each for process in little.of("engine") for each in process.sockets])[1:] and got)
        (network,) = {process.namespaces["net"] for process in little.of("engine")}
        assert sorted(map(said, held)) == [
            ("tcp", network, "listening", "127.0.0.1:8000", ""),
            ("tcp", network, "unconnected", "", ""),
        ]


def test_networks_hold_a_loopback_only() -> None:
    with Little() as little:
        found = sockets.networks(little.look())
        assert {(network.place, *network.interfaces.items()) for network in found} == {
            ("gateway", ("lo", 0)), (PLACE, ("lo", 0))
        }  # fmt: skip
        assert [network.routes for network in found] == [[], []]


VETH = """
from pyroute2 import IPRoute
with IPRoute() as link:
    link.link("add", ifname="road", kind="veth", peer="way")
    for name in ("road", "way"):
        link.link("set", index=link.link_lookup(ifname=name)[0], state="up")
    link.addr("add", index=link.link_lookup(ifname="road")[0], address="10.99.0.1", prefixlen=24)
    link.route("add", dst="10.98.0.0/16", gateway="10.99.0.2")
"""


def test_an_interface_and_a_route_that_an_engine_was_given_are_seen() -> None:
    with Little() as little:
        code = f"from tests.egress.little import enter; enter({little.keeper}); exec({VETH!r})"
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
        (network,) = (each for each in sockets.networks(little.look()) if each.place == PLACE)
        assert set(network.interfaces) == {"lo", "road", "way"}
        assert {line.split()[1] for line in network.routes if line.startswith("route:")} == {"road"}
        assert any(line.startswith("ipv6_route:") for line in network.routes)


@pytest.fixture
def services() -> Iterator[Path]:
    """A folder that no seal shows, with a service's socket in it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, daemon(Path(folder, "service")):
        yield Path(folder, "service")


def reached(little: Little, *configured: str) -> list[HostSocket]:
    trouble: list[str] = []
    found = sockets.host_sockets(little.look(), configured, trouble)
    assert trouble == []
    return found


def test_a_service_whose_socket_is_hidden_is_out_of_reach(services: Path) -> None:
    with Little() as little:
        assert reached(little) == []
        assert mounts.unexpected(little.look(), []) == []


BINDS = """
parts.may_administrate() or parts.new_user_namespace()
view.new_mounts()
other = folder / "state" / "harmless"
other.touch()
kernel.mount({!r}, str(other), None, kernel.MS_BIND)
"""


def test_a_service_is_found_under_the_other_name_that_it_was_given(services: Path) -> None:
    with Little(before=BINDS.format(str(services))) as little:
        harmless = str(little.folder / "state" / "harmless")
        comm = Path("/proc/self/comm").read_text().strip()
        assert reached(little) == [HostSocket("gateway", harmless, f"{comm} ({os.getpid()})", configured=False)]
        assert mounts.unexpected(little.look(), []) == [Mount("gateway", harmless, f"this host's {services}")]


def test_a_folder_of_sockets_under_another_name_is_found(services: Path) -> None:
    with Little(before=BINDS.format(str(services.parent)).replace("touch", "mkdir")) as little:
        (found,) = reached(little)
        assert found.path == str(little.folder / "state" / "harmless" / services.name)
        (mount,) = mounts.unexpected(little.look(), [])
        assert mount.source == f"this host's {services.parent}"


def test_an_open_folder_that_leads_past_the_seal_is_found(services: Path) -> None:
    with Little(before=f"kept = os.open({str(services.parent)!r}, os.O_RDONLY)") as little:
        (left,) = mounts.unexpected(little.look(), [])
        assert left.place == "gateway"
        assert left.source == f"the folder {services.parent}, which lies outside its view"


def test_a_device_that_the_seal_does_not_show_is_found() -> None:
    with Little(before="kept = os.open('/dev/ptmx', os.O_RDWR)") as little:
        (left,) = mounts.unexpected(little.look(), [])
        assert left.source in ("the device /dev/ptmx", "the device /dev/pts/ptmx")


def test_a_file_that_only_a_descriptor_leads_to_is_found(services: Path) -> None:
    """As where a link in the state folder was followed before the seal."""
    kept = f"kept = open({str(services.parent / 'victim')!r}, 'a')"
    with Little(before=kept) as little:
        (left,) = mounts.unexpected(little.look(), [])
        assert left.place == "gateway"
        assert left.source == f"the file {services.parent / 'victim'}, open for writing, which it may not write to"


def test_so_is_one_that_is_shown_but_read_only() -> None:
    with Little(before="kept = open(folder / 'nest' / 'logs' / 'appliance.log', 'a')") as little:
        (left,) = mounts.unexpected(little.look(), [])
        assert left.source.startswith(f"the file {little.folder / 'nest' / 'logs' / 'appliance.log'}, open for writing")


FILES = """
import tempfile
kept = [open(folder / "state" / "appliance.log", "a"), tempfile.TemporaryFile()]
kept += [open("/etc/passwd"), open(os.dup(1), "a")]
"""


def test_files_that_it_may_write_to_or_nobody_finds_or_that_it_only_reads_are_not(tmp_path: Path) -> None:
    with Little(before=FILES) as little:
        assert mounts.unexpected(little.look(), []) == []


WRITES = "import os, signal, sys; kept = open(sys.argv[1] + '/x', 'w'), open('/tmp/x', 'w'); signal.pause()"


def test_nor_are_the_log_of_an_engine_and_its_own_files() -> None:
    with Little(engine=WRITES) as little:
        until((little.engine / "x").exists)
        assert mounts.unexpected(little.look(), []) == []


HELD = {
    "a ring of io_uring": (
        "import ctypes; kept = ctypes.CDLL(None).syscall(425, 4, ctypes.create_string_buffer(120)); assert kept > 0",
        "anon_inode:[io_uring], which it never needs",
    ),
    "a network": ("kept = os.open('/proc/self/ns/net', os.O_RDONLY)", "net:["),
    "another's memory": ("kept = os.open(f'/proc/{nursery.pid}/mem', os.O_RDONLY)", "the memory of process "),
    "another process": ("kept = os.pidfd_open(os.getppid())", f"a hold on process {os.getpid()}, "),
    "a file in memory": ("kept = os.memfd_create('x')", "/memfd:x (deleted), which it never needs"),
    "a named pipe": (
        "os.mkfifo(folder / 'pipe'); kept = os.open(folder / 'pipe', os.O_RDWR)", "the named pipe ",
    ),
    "an event of userfaultfd": (
        "import ctypes, platform\n"
        "number = {'x86_64': 323, 'aarch64': 282}[platform.machine()]\n"
        "kept = ctypes.CDLL(None).syscall(number, 1)\nassert kept > 0",
        "anon_inode:[userfaultfd], which it never needs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HELD)
def test_what_else_was_left_open_is_found(what: str) -> None:
    code, expected = HELD[what]
    with Little(before=code) as little:
        found = mounts.unexpected(little.look(), [])
        assert {each.place for each in found} == {"gateway"}
        assert any(each.source.startswith(expected) for each in found), found


def test_what_only_another_thread_holds_is_found() -> None:
    before = (
        "there = threading.Event()\n"
        "def hold():\n"
        "    import ctypes\n"
        "    ctypes.CDLL(None).unshare(0x400)\n"
        "    os.closerange(3, 100)\n"  # else the nursery would never see its channel end
        "    os.memfd_create('x')\n"
        "    there.set()\n"
        "    threading.Event().wait()\n"
        "threading.Thread(target=hold, daemon=True).start()\n"
        "there.wait()"
    )
    with Little(before=before) as little:
        assert [each.source for each in mounts.unexpected(little.look(), [])] == [
            "/memfd:x (deleted), which it never needs"
        ]


def test_a_serial_line_is_no_terminal() -> None:
    output = os.fstat(1)
    assert not mounts._may_have(output, "/dev/ttyS0", "/proc/thread-self")
    assert not mounts._may_have(Path("/dev/zero").stat(), "/dev/tty0", "/proc/thread-self")
    assert mounts._may_have(output, "/dev/pts/3", "/proc/thread-self")


def test_what_a_sound_gateway_holds_is_not_odd() -> None:
    code = (
        "import select, signal\n"
        "kept = [os.eventfd(0), select.epoll(), os.pipe(), os.pidfd_open(nursery.pid), os.pidfd_open(os.getpid()),\n"
        "        open(folder / 'state' / 'log', 'w'), socket.socketpair()]"
    )
    with Little(before=code) as little:
        assert mounts.unexpected(little.look(), []) == []


def test_a_socket_that_waits_in_a_queue_is_counted() -> None:
    code = (
        "one, other = socket.socketpair()\n"
        "udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "socket.send_fds(one, [b'.'], [udp.fileno()])\n"
        "udp.close()"
    )
    with Little(before=code) as little:
        (gateway,) = little.of("gateway")
        assert sorted(each.waiting for each in gateway.sockets)[-2:] == [0, 1]


def test_who_else_holds_the_public_listener_is_told() -> None:
    with Little() as little:
        seen = little.look()
        assert sockets.sharers(seen) == []
        (gateway,) = (process for process in seen if process.role == "gateway")
        (door,) = (each for each in gateway.sockets if each.family == "tcp")
        taken = kernel.take_descriptor(gateway.pid, door.descriptor)
        code = "print('there', flush=True); import signal; signal.pause()"
        with started_by(code, taken) as other:
            try:
                os.close(taken)
                comm = Path(f"/proc/{other.pid}/comm").read_text().strip()
                assert sockets.sharers(seen) == [f"{comm} ({other.pid})"]
            finally:
                other.kill()


LISTENS = """
import threading, socket
from tests.egress.little import enter
def inside():
    enter({}, thread=True)
    kept.append(socket.create_server(("127.0.0.1", 4444)))
kept = []
thread = threading.Thread(target=inside)
thread.start()
thread.join()
print("there", flush=True)
threading.Event().wait()
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root has a thread enter a network by itself")
def test_a_socket_of_a_stranger_in_an_engines_network_is_found() -> None:
    with Little(engine=OPENS) as little:
        seen = until(lambda: (got := little.look()) and any(p.sockets for p in got if p.role == "engine") and got)
        assert [network.strangers for network in sockets.networks(seen)] == [[], []]
        with started_by(LISTENS.format(little.keeper)) as other:
            try:
                comm = Path(f"/proc/{other.pid}/comm").read_text().strip()
                found = {network.place: network.strangers for network in sockets.networks(little.look())}
                assert found == {"gateway": [], PLACE: [f"{comm} ({other.pid})"]}
            finally:
                other.kill()


CALLS = """
kept = socket.socket(socket.AF_UNIX)
kept.connect(str(folder / "state" / "service"))
"""


def test_the_other_end_of_a_connection_to_a_configured_service_is_no_stranger() -> None:
    """It belongs to the network of who called, though the service lives in the host's."""
    little = Little(after=CALLS)
    path = little.folder / "state" / "service"
    with daemon(path) as service, little, service.accept()[0]:
        seen = little.look()
        comm = Path("/proc/self/comm").read_text().strip()
        strangers = {
            configured: {network.place: network.strangers for network in sockets.networks(seen, configured)}
            for configured in ((), (str(path),), (str(path) + "s",))
        }
        unknown = {"gateway": [f"{comm} ({os.getpid()})"], PLACE: []}
        known: dict[str, list[str]] = {place: [] for place in unknown}
        assert strangers == {(): unknown, (str(path),): known, (str(path) + "s",): unknown}


@pytest.mark.parametrize(
    ("flags", "family", "inode", "found"),
    [
        ("00000000", "tcp", 4712, {4711}),
        ("00010000", "tcp", 4712, set()),  # one that listens there itself
        ("00000000", "tcp", 4711, set()),  # another's number in a name that looks like a line
        ("00000000", "unix", 4711, set()),
    ],
)
def test_only_what_was_accepted_at_a_configured_path_is_let_pass(
    tmp_path: Path, flags: str, family: str, inode: int, found: set[int]
) -> None:
    path = tmp_path / "service"
    tables = {
        "unix": f"Num\n0: 00000003 00000000 {flags} 0001 03 4711 {path}\n",
        "tcp": "sl\n",
    }
    tables[family] += {
        "unix": f"0: 00000003 00000000 00000000 0001 03 {inode}\n",
        "tcp": f"0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 {inode} 1 0\n",
    }[family]
    for name, text in tables.items():
        (tmp_path / name).write_text(text)
    assert sockets._accepted(tmp_path, {}, {str(path)}) == found
    assert sockets._accepted(tmp_path, {}, set()) == set()


def test_a_service_in_a_folder_that_the_gateway_sees_is_found_and_may_be_configured() -> None:
    with Little() as little, daemon(little.folder / "state" / "service"):
        path = str(little.folder / "state" / "service")
        assert [(each.place, each.path, each.configured) for each in reached(little)] == [("gateway", path, False)]
        assert [each.configured for each in reached(little, path)] == [True]


def test_a_service_in_another_network_is_found_too() -> None:
    with Little() as little:
        path = little.folder / "state" / "service"
        code = f"import socket; s = socket.socket(socket.AF_UNIX); s.bind({str(path)!r}); s.listen(); input()"
        start = ["unshare", *(["--user"] if os.getuid() else []), "--net", sys.executable, "-c", code]
        with subprocess.Popen(start, cwd=ROOT, stdin=subprocess.PIPE) as process:
            found = until(lambda: reached(little))
            assert [(each.place, each.path) for each in found] == [("gateway", str(path))]
            process.kill()


def test_a_datagram_service_is_found() -> None:
    with Little() as little, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(str(little.folder / "state" / "log"))
        assert [each.path for each in reached(little)] == [str(little.folder / "state" / "log")]


def test_what_the_gateway_listens_on_is_foreign_to_an_engine() -> None:
    before = "door = socket.socket(socket.AF_UNIX); door.bind(str(folder / 'nest/run/e1/door')); door.listen()"
    with Little(before=before) as little:
        door = str(little.engine / "door")
        assert [(each.place, each.path) for each in reached(little)] == [(PLACE, door)]


def test_an_engines_own_socket_is_its_own() -> None:
    with Little(engine=TAKES) as little:
        until(lambda: any(each.local for process in little.of("engine") for each in process.sockets))
        assert reached(little) == []
