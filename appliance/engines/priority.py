"""How an engine that starts gives way to those that serve, and ceases to.

Where the kernel groups processes by session (`sched_autogroup_enabled`, and no group of its own for this service),
only the weight of the whole group counts, and anybody may set that of his own back. Elsewhere the nice value counts,
which may be lowered again only by who has CAP_SYS_NICE or the limit for it (`LimitNICE=` of systemd). What can't be
taken back here isn't done.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from appliance.seal import kernel
from appliance.seal.evidence import process_ids, running

NICE = 5
"""By how much an engine gives way to the gateway, for good."""
_MORE = 5
"""By how much more while it starts: a third of the weight, so that one that serves gets three quarters where both want
all, and the other is ready some day all the same."""
_LOW = NICE + _MORE
_ATTEMPTS, _PAUSE = 20, 0.05


@dataclass(frozen=True, slots=True)
class Ways:
    """What of it can be taken back."""

    group: bool = False
    nice: bool = False

    @classmethod
    def here(cls) -> Ways:
        """Try it on two children. For a process without other children and threads."""
        return cls(_tried(_group_gives_way, _group_stops), _tried(lambda: os.nice(_LOW), _restore))


def lead_group(ways: Ways) -> None:
    """Have all that this process starts take only what others leave; only where /proc can be written to."""
    if ways.group:
        with contextlib.suppress(OSError):
            _group_gives_way()


def join_group(ways: Ways) -> None:
    """Have this process apart from others for signals, and in the group that gives way if there is one."""
    if ways.group:
        os.setpgrp()  # another session would be another group
    else:
        os.setsid()
    os.nice(_LOW if ways.nice else NICE)


def stop_giving_way(root: int) -> None:
    """Have all below process `root` be as if they never had. Those that start meanwhile are found in the next round."""
    seen: set[int] = set()
    while found := set(_below(root)) - seen:
        seen |= found
        for pid in found:
            with contextlib.suppress(OSError):
                if os.getsid(pid) == pid:
                    _group_stops(pid)
            for thread in _threads(pid):
                with contextlib.suppress(OSError):
                    if os.getpriority(os.PRIO_PROCESS, thread) == _LOW:
                        _restore(thread)


def _group_gives_way() -> None:
    os.setsid()
    _weigh("self", _MORE)  # whatever number it has where this /proc is from


def _group_stops(pid: int) -> None:
    _weigh(pid, 0)


def _restore(thread: int) -> None:
    os.setpriority(os.PRIO_PROCESS, thread, NICE)


def _weigh(pid: int | str, nice: int) -> None:
    """Set what the whole session of `pid` weighs. Raises OSError where the kernel doesn't know of it."""
    for _ in range(_ATTEMPTS):
        try:
            Path(f"/proc/{pid}/autogroup").write_text(str(nice))
        except BlockingIOError:  # the kernel grants the unprivileged ten of them a second, all together
            time.sleep(_PAUSE)
        else:
            return
    raise BlockingIOError


def _tried(there: Callable[[], object], back: Callable[[int], None]) -> bool:
    """Whether `back` undoes what a child did by `there`."""
    done, tell = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            kernel.die_with_parent(parent, signal.SIGKILL)
            there()
            os.write(tell, b".")
            signal.pause()
        finally:
            os._exit(1)
    os.close(tell)
    try:
        if not os.read(done, 1):
            return False
        back(pid)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(done)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _below(root: int) -> Iterator[int]:
    """Processes that `root` has started, and those that they have."""
    parents: dict[int, int] = {}
    for pid in process_ids():
        with contextlib.suppress(OSError):
            parents[pid] = running(pid).parent
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    yield from found - {root}


def _threads(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(folder.name) for folder in Path(f"/proc/{pid}/task").iterdir()]
    return []
