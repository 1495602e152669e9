"""Which part of this host's file system a sealed process sees, and under which names.

A socket or a folder is known by its file system and the path inside that; mounts show it under any name they like.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from appliance.egress.findings import SEALED, Mount, Process
from appliance.seal import view
from appliance.seal.evidence import running_threads

_SELF = "/proc/thread-self"
WHOLE = frozenset(("/dev", "/dev/shm", "/home", "/root", "/run", "/tmp", "/var", "/var/run", "/var/tmp"))  # noqa: S108
"""Folders that a seal shows pieces of at most: the host's daemons have their sockets there, its users their files."""
_DEVICES = (*view.DEVICES, *view.GPU_DEVICES, "console", "pts/[0-9]*", "tty*")
_FRESH = frozenset(("tmpfs", "proc"))
_REMOTE = re.compile(r"nfs4?|cifs|smb3|ceph|afs|lustre|fuse\.(?!lxcfs).*")
"""File systems that send what is written to them."""


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


def views(processes: Iterable[Process], trouble: list[str]) -> Iterator[View]:
    """What each place sees; more than one view where its processes live in several mount namespaces."""
    done = set()
    for process in processes:
        key = (process.place, process.namespaces.get("mnt"))
        if process.role not in SEALED or key in done:
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
    mounts = [mount for mount in _of(folder) if _beneath(mount.point, path) is not None]
    mount = max(mounts, key=lambda each: len(each.point))
    inside = _joined(mount.root, _beneath(mount.point, path) or "")
    return Location(path, mount.device, inside, _identity(f"{folder}/root{path}"))


def unexpected(processes: Sequence[Process], trouble: list[str]) -> list[Mount]:
    """What a place sees of this host that the seal never shows.

    A folder under another name, a whole one of WHOLE, one on a server elsewhere that can be written to; and what a
    process was left with from before: open folders, which lead past every mount, and devices.
    """
    host = _of(_SELF)
    found = []
    for process in processes:
        if process.role in SEALED:
            with contextlib.suppress(OSError):  # it has ended, or may not be read, which its sockets told
                found += [Mount(process.place, *left) for left in _left_open(thread_folder(process))]
    for seen in views(processes, trouble):
        found += [Mount(seen.place, *shown) for shown in strange(seen.mounts, host)]
    return found


def strange(mounts: Iterable[Mounted], host: Sequence[Mounted]) -> Iterator[tuple[str, str]]:
    """Path and source of each mount that a seal never makes, given those of the host. Pure."""
    devices = {mount.device for mount in host}
    for mount in mounts:
        if _REMOTE.fullmatch(mount.kind) and mount.writable:
            yield mount.point, f"of a {mount.kind} server, and can be written to"
        outside = names(host, mount.device, mount.root)
        if mount.device not in devices:
            if mount.kind not in _FRESH:
                yield mount.point, f"a {mount.kind} file system that this host lacks"
        elif mount.point not in outside or mount.point in WHOLE:
            what = outside[0] if outside else f"{mount.root} of a {mount.kind} file system"
            yield mount.point, f"this host's {what}"


def _left_open(thread: str) -> Iterator[tuple[str, str]]:
    """Folders that aren't where the process would find them by their path, and devices that it isn't shown."""
    folder = Path(thread)
    for handle in (folder / "cwd", *(folder / "fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            kind, path = handle.stat(), str(handle.readlink())
            name = f"its {handle.name}" if handle.name == "cwd" else f"its descriptor {handle.name}"
            if stat.S_ISDIR(kind.st_mode) and not _same(kind, Path(f"{thread}/root{path}")):
                yield name, f"the folder {path}, which lies outside its view"
            device = stat.S_ISBLK(kind.st_mode) or stat.S_ISCHR(kind.st_mode)
            if device and not any(fnmatchcase(path, f"/dev/{pattern}") for pattern in _DEVICES):
                yield name, f"the device {path}"


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
