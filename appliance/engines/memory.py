"""How much memory this host has left, and how much engines hold: read from the kernel, and from the driver of GPUs.

The gateway reads while it is sealed: Landlock keeps it from engines' `smaps_rollup`, so what engines hold is the sum of
their processes' own pages, as `status` shows them to everybody. That counts pages that they share after a fork more
than once: some 5 % too much for vLLM.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from appliance.engines.capacity import GIB, Gpu

_NO_LIMIT = 1 << 60
"""Bytes from which on a limit is none: version 1 of cgroups writes a number that no host has."""
_SMI_SECONDS = 20.0


class Kernel:
    """What the kernel tells; its files lie below `root`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def total(self) -> float:
        """GiB that this host has, or that this process and those beside it are limited to."""
        limits = (limit for limit, _ in self._limits())
        return min([self._memory("MemTotal"), *limits])

    def free(self) -> float:
        """GiB that can be taken now without swapping, and without running into a limit."""
        rooms = (max(0.0, limit - taken) for limit, taken in self._limits())
        return min([self._memory("MemAvailable"), *rooms])

    def held(self, pid: int) -> float:
        """GiB that a process and all below it hold; 0 for one that has ended, or that can't be seen."""
        own = shared = files = 0.0
        for each in self._tree(pid):
            with contextlib.suppress(OSError, ValueError):
                fields = _fields(self._root / "proc" / str(each) / "status")
                own += fields.get("RssAnon", 0)
                shared = max(shared, fields.get("RssShmem", 0))
                files = max(files, fields.get("RssFile", 0))  # nearly all of it are the same libraries
        return own + shared + files

    def _tree(self, pid: int) -> Iterator[int]:
        yield pid
        with contextlib.suppress(OSError, ValueError):
            for thread in (self._root / "proc" / str(pid) / "task").iterdir():
                for child in (thread / "children").read_text().split():
                    yield from self._tree(int(child))

    def _memory(self, name: str) -> float:
        return _fields(self._root / "proc" / "meminfo")[name]

    def _limits(self) -> Iterator[tuple[float, float]]:
        """GiB that each group around this process may take, and that it takes; what can be dropped doesn't count."""
        groups = self._root / "sys" / "fs" / "cgroup"
        with contextlib.suppress(OSError):
            for line in (self._root / "proc" / "self" / "cgroup").read_text().splitlines():
                _, controllers, path = line.split(":", 2)
                if controllers == "":
                    top = groups if (groups / "cgroup.controllers").exists() else groups / "unified"
                    names = "memory.max", "memory.current", "inactive_file"
                elif "memory" in controllers.split(","):
                    top = groups / "memory"
                    names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
                else:
                    continue
                # in a container the path may be the host's, which isn't there, and its own group the top
                for folder in (top, *(top / part for part in _ancestors(path))):
                    if (found := _limit(folder, *names)) is not None:
                        yield found


def gpus() -> tuple[Gpu, ...]:
    """The GPUs of this host, as the driver's own program tells; none where it can't be asked.

    Call it before anything is sealed or loaded: what is taken by then is others'.
    """
    command = ["nvidia-smi", "--query-gpu=memory.total,memory.used", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=_SMI_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return read_gpus(told)


def read_gpus(told: str) -> tuple[Gpu, ...]:
    """GPUs from lines of `total, used` in MiB. One whose memory isn't told, as of some with unified memory, is none."""
    found = []
    for line in told.splitlines():
        total, _, used = line.partition(",")
        with contextlib.suppress(ValueError):
            found.append(Gpu(float(total) / 1024, float(used) / 1024))
    return tuple(found)


def _ancestors(path: str) -> Iterator[str]:
    parts = path.strip("/").split("/")
    for count in range(len(parts)):
        yield "/".join(parts[: count + 1])


def _limit(folder: Path, limit: str, taken: str, droppable: str) -> tuple[float, float] | None:
    try:
        most = (folder / limit).read_text().strip()
        if most == "max" or int(most) >= _NO_LIMIT:
            return None
        counted = dict(line.split(" ", 1) for line in (folder / "memory.stat").read_text().splitlines())
        return int(most) / GIB, (int((folder / taken).read_text()) - int(counted.get(droppable, 0))) / GIB
    except (OSError, ValueError):
        return None


def _fields(file: Path) -> dict[str, float]:
    """Lines of `Name:  123 kB`, in GiB."""
    found = {}
    for line in file.read_text().splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            found[name] = int(value[:-3]) / 2**20
    return found
