"""Which part of this host's file system a sealed process sees, and under which names.

A socket or a folder is known by its file system and the path inside that; mounts show it under any name they like.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from appliance.egress.findings import DIALLER, SEALED, Mount, Process
from appliance.seal import kernel, view
from appliance.seal.evidence import running, running_threads

_SELF = "/proc/thread-self"
WHOLE = frozenset(("/dev", "/dev/shm", "/home", "/root", "/run", "/tmp", "/var", "/var/run", "/var/tmp"))  # noqa: S108
"""Folders that a seal shows pieces of at most: the host's daemons have their sockets there, its users their files."""
_DEVICES = (*view.DEVICES, *view.GPU_DEVICES)
_TERMINALS = ("console", "pts/[0-9]*", "tty", "tty[0-9]*")
"""Devices that are a process's standard input and output at most. Never a serial line, which leads off this host."""
_NAMELESS = re.compile(
    r"(socket|pipe):\[\d+\]|anon_inode:\[(eventpoll|eventfd|timerfd|signalfd|pidfd)\]|anon_inode:inotify"
)
_NAMELESS_IN_ENGINES = re.compile(r"/memfd:.*|/dmabuf:.*")
"""What has no file and that a process may hold: neither a ring of io_uring, nor a program or counter of the kernel's,
nor a network namespace. Sockets are looked at by themselves."""
_MEMORY = re.compile(r"/proc/(\d+)/(?:task/\d+/)?mem")
_FRESH = frozenset(("tmpfs", "proc"))
_LOCAL = frozenset((
    "autofs", "binfmt_misc", "bpf", "btrfs", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs",
    "efivarfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "fuse.lxcfs", "fusectl", "hugetlbfs", "iso9660", "mqueue",
    "overlay", "proc", "pstore", "ramfs", "rootfs", "securityfs", "selinuxfs", "squashfs", "sysfs", "tmpfs", "tracefs",
    "vfat", "xfs", "zfs",
))  # fmt: skip
"""File systems that send nothing off this host. autofs holds no files; what it mounts is looked at by itself."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of a process's mountinfo."""

    number: int
    parent: int
    device: str
    root: str
    """The path inside the file system that it shows."""
    point: str
    """Where it shows it."""
    kind: str
    writable: bool


@dataclass(frozen=True, slots=True)
class Location:
    """A file: its path where it was found, its file system, the path inside that, and its (device, inode)."""

    path: str
    device: str
    inside: str
    identity: tuple[int, int] | None
    """None where this user may not look."""


@dataclass(frozen=True, slots=True)
class View:
    """What the processes of one place see."""

    place: str
    folder: str
    """One of their threads in /proc."""
    mounts: list[Mounted]
    """Those that can be reached; what is mounted over is left out."""

    def paths(self, file: Location) -> list[str]:
        """The paths under which they see the socket `file`."""
        found = []
        for path in names(self.mounts, file.device, file.inside):
            try:
                there = Path(f"{self.folder}/root{path}").stat()
            except OSError:
                continue
            if stat.S_ISSOCK(there.st_mode) and file.identity in (None, (there.st_dev, there.st_ino)):
                found.append(path)
        return found


def thread_folder(process: Process) -> str:
    """Where /proc has a thread of `process` that runs: of a first thread that has ended it shows nothing."""
    return f"/proc/{process.pid}/task/{process.threads[0].thread}"


def tables(threads: Iterable[int]) -> list[int]:
    """One thread for each table of descriptors that `threads` have: each of them may have one of its own."""
    found: list[int] = []
    for thread in threads:
        if not any(_same_table(thread, other) for other in found):
            found.append(thread)
    return found


def _same_table(one: int, other: int) -> bool:
    try:
        return kernel.share_descriptors(one, other)
    except OSError:  # it can't be told: then the table is read twice
        return False


def parse(text: str) -> list[Mounted]:
    """Read /proc/PID/mountinfo."""
    found = []
    for line in filter(None, text.split("\n")):
        before, after = line.split(" - ", 1)
        number, parent, device, root, point, options, *_ = before.split(" ")
        kind, _, more = after.split(" ", 2)
        writable = "ro" not in options.split(",") and "ro" not in more.split(",")
        found.append(Mounted(int(number), int(parent), device, _unescaped(root), _unescaped(point), kind, writable))
    return found


def reachable(mounts: list[Mounted]) -> list[Mounted]:
    """Those mounts that no other one covers, from the root downwards."""
    below: dict[int, dict[str, Mounted]] = {}
    numbers = {mount.number for mount in mounts}
    tops = []
    for mount in mounts:
        if mount.parent in numbers and mount.parent != mount.number:
            below.setdefault(mount.parent, {})[mount.point] = mount
        else:
            tops.append(mount)
    found = []
    for mount in tops:  # grows while it is walked
        inner = below.get(mount.number, {})
        if over := inner.get(mount.point):
            tops.append(over)
            continue
        found.append(mount)
        tops += [each for point, each in inner.items() if not any(outer in inner for outer in _above(point))]
    return found


def names(mounts: Iterable[Mounted], device: str, inside: str) -> list[str]:
    """Where `mounts` show the path `inside` of a file system, unless something is mounted over it."""
    return [_joined(mount.point, rest) for mount in mounts if mount.device == device
            and (rest := _beneath(mount.root, inside)) is not None]  # fmt: skip


def views(processes: Iterable[Process], trouble: list[str], *, of_dialler: bool = False) -> Iterator[View]:
    """What each place sees; more than one view where its processes live in several mount namespaces.

    The dialler sees folders of daemons, which its filter keeps it from talking to: it is looked at only if asked for.
    """
    done = set()
    for process in processes:
        key = (process.place, process.namespaces.get("mnt"))
        wanted = process.place == DIALLER if of_dialler else process.role in SEALED
        if not wanted or key in done:
            continue
        try:
            yield View(process.place, thread_folder(process), _of(thread_folder(process)))
        except OSError:
            if not running_threads(process.pid):  # another of the same place may be left
                continue
            trouble.append(
                f"process {process.pid} ({process.command}): its mounts may not be read; verify as root, or as its user"
            )
        done.add(key)


def locate(path: str, owner: int | None) -> list[Location]:
    """Where the socket bound as `path` by the process `owner` may lie, as that process and this one see it."""
    found = []
    if path.startswith("/"):
        found.append(_located(_SELF, str(Path(path).parent.resolve() / Path(path).name)))
    if owner is not None:
        with contextlib.suppress(OSError):  # another user's, or it has ended
            folder = Path(f"/proc/{owner}/cwd").readlink()
            found.append(_located(f"/proc/{owner}", os.path.normpath(folder / path)))
    return [file for file in found if file.identity] or found[:1]


def _located(folder: str, path: str) -> Location:
    mount = _mount_of(_of(folder), path)
    inside = _joined(mount.root, _beneath(mount.point, path) or "")
    return Location(path, mount.device, inside, _identity(f"{folder}/root{path}"))


def unexpected(processes: Sequence[Process], trouble: list[str]) -> list[Mount]:
    """What a place sees of this host that the seal never shows.

    A folder under another name, a whole one of WHOLE, one on a server elsewhere that can be written to; and what a
    process was left with from before: open folders, which lead past every mount, devices, named pipes and files to
    write to that it couldn't open itself, others' memory, processes of others, and whatever else isn't known to be
    harmless. Those that our unsealed processes have as output were given to it: engines' logs, and what
    the appliance was started with.
    """
    host = _of(_SELF)
    given = {each for process in processes if process.role == "trusted" for each in _output(thread_folder(process))}
    family = {process.pid for process in processes}
    found = []
    for process in processes:
        if process.role in SEALED:
            with contextlib.suppress(OSError):  # it has ended, or may not be read, which its sockets told
                for thread in tables([each.thread for each in process.threads]):
                    folder = f"/proc/{process.pid}/task/{thread}"
                    left = (*_left_open(folder, given), *_odd(process, folder, given, family))
                    found += [Mount(process.place, *each) for each in left]
    for seen in (*views(processes, trouble), *views(processes, trouble, of_dialler=True)):
        found += [Mount(seen.place, *shown) for shown in strange(seen.mounts, host)]
    return found


def strange(mounts: Iterable[Mounted], host: Sequence[Mounted]) -> Iterator[tuple[str, str]]:
    """Path and source of each mount that a seal never makes, given those of the host. Pure."""
    devices = {mount.device for mount in host}
    for mount in mounts:
        if mount.kind not in _LOCAL and mount.writable:
            yield mount.point, f"a {mount.kind} file system, which may lead off this host, and can be written to"
        outside = names(host, mount.device, mount.root)
        if mount.device not in devices:
            if mount.kind not in _FRESH:
                yield mount.point, f"a {mount.kind} file system that this host lacks"
        elif mount.point not in outside or mount.point in WHOLE:
            what = outside[0] if outside else f"{mount.root} of a {mount.kind} file system"
            yield mount.point, f"this host's {what}"


def remote(processes: Sequence[Process], trouble: list[str]) -> list[Mount]:
    """The mounts that a place can but read and that may come from another host."""
    return [
        Mount(seen.place, mount.point, f"a {mount.kind} file system")
        for seen in views(processes, trouble)
        for mount in seen.mounts
        if mount.kind not in _LOCAL and not mount.writable
    ]


def _output(thread: str) -> Iterator[tuple[int, int]]:
    """(device, inode) of what a process has as its standard output and error."""
    for standard in ("1", "2"):
        with contextlib.suppress(OSError):
            kind = Path(thread, "fd", standard).stat()
            yield kind.st_dev, kind.st_ino


def _left_open(thread: str, given: Set[tuple[int, int]]) -> Iterator[tuple[str, str]]:
    """Folders that aren't where the process would find them by their path, devices that it isn't shown, and files that
    it may write to through a descriptor alone, but for those `given`."""
    folder = Path(thread)
    mounts = _of(thread)
    for handle in (folder / "cwd", *(folder / "fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            kind, path = handle.stat(), str(handle.readlink())
            name = f"its {handle.name}" if handle.name == "cwd" else f"its descriptor {handle.name}"
            if stat.S_ISDIR(kind.st_mode) and not _same(kind, Path(f"{thread}/root{path}")):
                yield name, f"the folder {path}, which lies outside its view"
            device = stat.S_ISBLK(kind.st_mode) or stat.S_ISCHR(kind.st_mode)
            if device and not _may_have(kind, path, thread):
                yield name, f"the device {path}"
            # without a name, in memory or deleted, nobody else finds it
            file = stat.S_ISREG(kind.st_mode) and kind.st_nlink and (kind.st_dev, kind.st_ino) not in given
            if file and _writes(folder, handle.name):
                within = _same(kind, Path(f"{thread}/root{path}")) and _mount_of(mounts, path).writable
                if not within:
                    yield name, f"the file {path}, open for writing, which it may not write to"


def _odd(process: Process, thread: str, given: Set[tuple[int, int]], family: Set[int]) -> Iterator[tuple[str, str]]:
    """What a process holds beside files, folders, devices, and the nameless things that are known to be harmless."""
    for handle in Path(thread, "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            kind, path = handle.stat(), str(handle.readlink())
            name = f"its descriptor {handle.name}"
            if path == "anon_inode:[pidfd]":
                pid = int(_fields(Path(thread), handle.name)["Pid"])
                if pid > 0 and not _descends(pid, family):
                    yield name, f"a hold on process {pid}, which is not the appliance's"
            elif not path.startswith("/"):
                if not _NAMELESS.fullmatch(path):
                    yield name, f"{path}, which it never needs"
            elif process.role == "engine" and _NAMELESS_IN_ENGINES.fullmatch(path):
                continue
            elif stat.S_ISFIFO(kind.st_mode):
                if (kind.st_dev, kind.st_ino) not in given and not _same(kind, Path(f"{thread}/root{path}")):
                    yield name, f"the named pipe {path}, which lies outside its view"
            elif (memory := _MEMORY.fullmatch(path)) and int(memory[1]) != process.pid and process.role != "engine":
                yield name, f"the memory of process {memory[1]}"
            elif not stat.S_IFMT(kind.st_mode) or _NAMELESS_IN_ENGINES.fullmatch(path):
                yield name, f"{path}, which it never needs"


def _may_have(kind: os.stat_result, path: str, thread: str) -> bool:
    """Whether a device is one that the seal shows, or the terminal at which the appliance was started."""
    if any(fnmatchcase(path, f"/dev/{pattern}") for pattern in _DEVICES):
        return True
    terminal = any(fnmatchcase(path, f"/dev/{pattern}") for pattern in _TERMINALS)
    return terminal and any(_same(kind, Path(thread, "fd", standard)) for standard in ("0", "1", "2"))


def _descends(pid: int, family: Set[int]) -> bool:
    """Whether a process is one of `family`, has been started by one since, or has ended."""
    while pid not in family:
        try:
            process = running(pid)
        except (FileNotFoundError, ProcessLookupError):
            return True
        if process.ended:
            return True
        if (pid := process.parent) <= 1:
            return False
    return True


def _fields(folder: Path, descriptor: str) -> dict[str, str]:
    lines = (folder / "fdinfo" / descriptor).read_text().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _writes(folder: Path, descriptor: str) -> bool:
    """Whether a descriptor was opened for writing."""
    return int(_fields(folder, descriptor)["flags"], 8) & os.O_ACCMODE in (os.O_WRONLY, os.O_RDWR)


def _mount_of(mounts: Iterable[Mounted], path: str) -> Mounted:
    return max((mount for mount in mounts if _beneath(mount.point, path) is not None), key=lambda each: len(each.point))


def _same(kind: os.stat_result, path: Path) -> bool:
    try:
        there = path.stat()
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (kind.st_dev, kind.st_ino)


def _of(folder: str) -> list[Mounted]:
    with open(f"{folder}/mountinfo", errors="surrogateescape") as file:  # noqa: PTH123 - keeps odd names
        return reachable(parse(file.read()))


def _identity(path: str) -> tuple[int, int] | None:
    try:
        there = Path(path).stat()
    except OSError:
        return None
    return (there.st_dev, there.st_ino) if stat.S_ISSOCK(there.st_mode) else None


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), path)


def _above(point: str) -> list[str]:
    """The folders above a path, without the root: `/a/b/c` gives `/a/b` and `/a`."""
    parts = point.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts) - 1, 1, -1)]


def _beneath(folder: str, path: str) -> str | None:
    """`path` relative to `folder`, empty if it is that; None if it lies elsewhere."""
    if path == folder:
        return ""
    start = folder.rstrip("/") + "/"
    return path.removeprefix(start) if path.startswith(start) else None


def _joined(folder: str, rest: str) -> str:
    return f"{folder.rstrip('/')}/{rest}" if rest else folder
