"""What the kernel and the driver tell of memory, and what is remembered of it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.engines.capacity import GIB, Gpu
from appliance.engines.measured import Measured
from appliance.engines.memory import Kernel, read_gpus
from tests.engines.test_capacity import spec

MEMINFO = (
    "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    8388608 kB\nHugePages_Total:       0\n"
)


class Host:
    """A kernel's files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/meminfo", MEMINFO)

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def group(self, path: str, most: str, taken_gib: float, droppable_gib: float = 0) -> None:
        """A group of version 2."""
        self.write("sys/fs/cgroup/cgroup.controllers", "memory")
        folder = f"sys/fs/cgroup/{path}"
        self.write(f"{folder}/memory.max", f"{most}\n")
        self.write(f"{folder}/memory.current", f"{int(taken_gib * GIB)}\n")
        self.write(f"{folder}/memory.stat", f"anon 17\ninactive_file {int(droppable_gib * GIB)}\n")

    def process(self, pid: int, anon: int, shared: int, file: int, children: str = "") -> None:
        """A process; figures in MiB."""
        fields = {"RssAnon": anon, "RssFile": file, "RssShmem": shared}
        lines = [f"{name}:\t{mib * 1024:8} kB" for name, mib in fields.items()]
        self.write(f"proc/{pid}/status", "\n".join(["Name:\tpython", *lines]))
        self.write(f"proc/{pid}/task/{pid}/children", children)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_without_limits_it_is_what_the_host_has(host: Host) -> None:
    assert (Kernel(host.root).total(), Kernel(host.root).free()) == (16, 8)


def test_the_tightest_group_around_this_process_counts(host: Host) -> None:
    host.write("proc/self/cgroup", "0::/system.slice/appliance.service\n")
    host.group("system.slice", str(10 * GIB), taken_gib=3)
    host.group("system.slice/appliance.service", "max", taken_gib=1)
    assert (Kernel(host.root).total(), Kernel(host.root).free()) == (10, 7)
    host.group("system.slice/appliance.service", str(6 * GIB), taken_gib=5, droppable_gib=2)
    assert (Kernel(host.root).total(), Kernel(host.root).free()) == (6, 3)
    host.group("system.slice/appliance.service", str(6 * GIB), taken_gib=7)
    assert Kernel(host.root).free() == 0


def test_in_a_container_whose_path_is_the_hosts_its_own_group_counts(host: Host) -> None:
    host.write("proc/self/cgroup", "0::/docker/0123456789ab\n")
    host.group("", str(4 * GIB), taken_gib=1)
    assert Kernel(host.root).free() == 3


def test_the_older_kind_of_groups_is_read_too(host: Host) -> None:
    host.write("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/box\n0::/\n")
    for name, value in {"limit_in_bytes": 5 * GIB, "usage_in_bytes": 4 * GIB}.items():
        host.write(f"sys/fs/cgroup/memory/box/memory.{name}", str(value))
    host.write("sys/fs/cgroup/memory/box/memory.stat", f"cache 1\ntotal_inactive_file {GIB}\n")
    host.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
    assert (Kernel(host.root).total(), Kernel(host.root).free()) == (5, 2)


def test_an_engine_holds_what_all_its_processes_hold_and_libraries_once(host: Host) -> None:
    host.process(10, 1, 0, 1, children="11")
    host.process(11, 512, 64, 96, children="12 13 ")
    host.process(12, 1024, 64, 128)
    assert Kernel(host.root).held(10) == pytest.approx((1 + 512 + 1024 + 64 + 128) / 1024), "and 13 has just ended"
    assert Kernel(host.root).held(99) == 0


def test_the_real_kernel_tells_all_of_it() -> None:
    kernel = Kernel()
    assert 0 < kernel.free() < kernel.total()
    fill = "x = bytearray(200 << 20); print(flush=True); input()"
    started = [sys.executable, "-c", f"import os\nif os.fork() == 0:\n    {fill}\nelse:\n    os.wait()"]
    with subprocess.Popen(started, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        assert 0.2 < kernel.held(child.pid) < 0.4, "the child of the child counts"
        assert kernel.held(os.getpid()) > kernel.held(child.pid)
        child.stdin.close()


def test_gpus_are_read_from_what_their_driver_prints() -> None:
    assert read_gpus("24576, 12288\n24576, 0\n") == (Gpu(24, 12), Gpu(24, 0))
    assert read_gpus("[N/A], [N/A]\n") == ()


def test_what_an_engine_took_is_known_at_the_next_start(tmp_path: Path) -> None:
    one, other = spec(), spec(kv_cache={"space_gib": 1})
    measured = Measured(tmp_path)
    measured.note(one, 3.5)
    measured.note(one, 3.9)
    measured.note(one, 2.0)
    again = Measured(tmp_path)
    assert again.of(one) == 3.9, "the most that it took"
    assert again.of(other) is None
    assert again.of(replace(one, fingerprint="0" * 64)) is None
    assert again.of(spec(wait_seconds=7)) == 3.9, "that doesn't change the engine"


def test_a_broken_record_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "measured.json").write_text("[1]")
    measured = Measured(tmp_path)
    assert "measured anew" in caplog.text
    measured.note(spec(), 3)
    assert Measured(tmp_path).of(spec()) == 3
