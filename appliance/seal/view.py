"""The part of the file system that a sealed process sees.

A daemon's Unix socket sends for whoever may open it, and no filter on system calls looks at paths. So the
process gets a mount namespace in which only the system's own folders and what it was promised exist.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from appliance.seal import kernel

SHOWN = frozenset(("bin", "etc", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "sys", "usr"))
"""The folders at the root of the file system that a sealed process sees. All others are empty to it, but for what
it was promised: wherever a site keeps its state, models and checkouts, a socket or a secret there is out of reach."""
HIDDEN_INSIDE = ("/etc/appliance",)
DEVICES = ("full", "null", "random", "urandom", "zero")
GPU_DEVICES = ("nvidia[0-9]*", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset", "nvidia-caps/*")
"""What lies in /dev beside DEVICES: graphics cards by name. Never /dev/infiniband, through which memory travels
to other hosts without a socket; never /dev/net/tun, /dev/vhost-vsock or a disk."""
_ESCAPED = re.compile(rb"\\([0-7]{3})")
_LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}


def interpreter() -> list[Path]:
    """The folders of which the running Python, its packages and the appliance's own code are made."""
    return [Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[1]]


def new_mounts() -> None:
    """Enter a mount namespace of one's own, from which nothing travels back."""
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)


def covered() -> list[Path]:
    """The folders of this host that a sealed process sees empty, and /dev, of which it sees little."""
    outer = [folder for folder in Path("/").iterdir() if folder.name not in SHOWN]
    inner = map(Path, HIDDEN_INSIDE)
    return [folder for folder in sorted([*outer, *inner]) if folder.is_dir() and not folder.is_symlink()]


def devices() -> list[Path]:
    """The device nodes that stay, of those that this host has."""
    folder = Path("/dev")
    gpus = [node for pattern in GPU_DEVICES for node in folder.glob(pattern)]
    return [node for node in [*(folder / name for name in DEVICES), *gpus] if node.is_char_device()]


def hide(hidden: Iterable[Path], kept: Iterable[Path] | Mapping[Path, int]) -> None:
    """Cover the folders `hidden` with empty ones, in which the paths `kept` and the devices appear again.

    As a mapping, `kept` gives an open descriptor of each path. Raises OSError where a path leads elsewhere by now.
    """
    # Sorted: an outer folder is bound before one inside it, which it would cover.
    wanted = sorted({*kept, *devices()})
    handles = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in wanted]
    if isinstance(kept, Mapping):  # those of another mount namespace can't be mounted, only compared with
        _require_same(handles, kept)
    var_run = Path("/var/run")
    was_link = var_run.is_symlink()
    for folder in sorted(set(hidden) - set(wanted)):  # a bind of one that is covered brings the cover along
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
    for name, target in _LINKS.items():
        Path("/dev", name).symlink_to(target)
    shared_memory = Path("/dev/shm")  # noqa: S108 - of one's own, in the folder that was just covered
    shared_memory.mkdir()
    shared_memory.chmod(0o1777)


def _require_same(handles: Iterable[tuple[Path, int]], meant: Mapping[Path, int]) -> None:
    for path, handle in handles:
        if path in meant and not os.path.samestat(os.fstat(handle), os.fstat(meant[path])):
            raise OSError(errno.ESTALE, "isn't what it was; start the appliance again", str(path))


def cover(folders: Iterable[Path]) -> None:
    """Put an empty folder that can't be written to over each of `folders`."""
    for folder in folders:
        kernel.mount("tmpfs", str(folder), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_RDONLY, "mode=0")


def protect(covers: Iterable[Path], writable: Iterable[Path]) -> None:
    """Make every file read-only but those in the mounts `covers`, and below `writable` where they weren't before."""
    folders = [str(path) for path in writable]
    # another disk may be mounted in the state folder
    inside = [point for point in _writable_mounts() if any(point.startswith(f"{folder}/") for folder in folders)]
    kernel.make_read_only("/")
    for point in {*map(str, covers), *folders, *inside}:
        kernel.make_writable(point)


def _writable_mounts() -> Iterator[str]:
    """Where something is mounted that can be written to."""
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        point, options = line.split(b" ")[4:6]
        if b"ro" not in options.split(b","):
            yield os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), point))


def fresh_proc() -> None:
    """Mount a /proc that shows the process namespace entered last."""
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
