"""What runs below a gateway is found, named and described as the kernel has it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from appliance.egress import mounts, processes, sockets
from appliance.egress.findings import Process, Role
from appliance.egress.processes import Running
from appliance.egress.started import Known
from appliance.seal.evidence import ThreadEvidence
from tests.egress.little import PLACE, Little, beside, started_by
from tests.fakes.house import until

HOST = processes.namespaces()
TICKS = 7
DOES = {2: "nursery", 3: "outlet", 4: "witness", 7: "template", 8: "gate"}
TRUSTED = {pid: Known(pid, TICKS, does) for pid, does in DOES.items()}


def threads(filters: int) -> list[ThreadEvidence]:
    return [ThreadEvidence(1, 2 if filters else 0, filters, 1, 0, None)]


def named(parents: Mapping[int, int], *, filters: Mapping[int, int], ticks: int = TICKS) -> dict[int, tuple[Role, str]]:
    table = {pid: Running(parent, ticks, "") for pid, parent in parents.items()}
    return processes.roles(1, {20: PLACE}, TRUSTED, table, {pid: threads(filters.get(pid, 0)) for pid in parents}, 40)


def test_each_process_is_named_by_what_started_it() -> None:
    tree = {1: 0, 2: 1, 3: 1, 4: 1, 5: 1, 6: 5, 20: 2, 30: 3, 40: 4, 41: 4, 42: 40, 200: 20, 201: 200}
    assert named(tree, filters={}) == {
        1: ("gateway", "gateway"),
        2: ("trusted", "nursery"),
        3: ("outlet", "outlet"),
        4: ("trusted", "witness"),
        5: ("gateway", "gateway"),
        6: ("gateway", "gateway"),
        20: ("trusted", "keeper of engine chat"),
        30: ("outlet", "outlet"),
        40: ("prober", "witness"),
        41: ("trusted", "witness at work"),
        42: ("prober", "witness"),
        200: ("engine", PLACE),
        201: ("engine", PLACE),
    }


def test_detectors_are_forks_of_the_template_and_nothing_else_is_of_the_gate() -> None:
    tree = {1: 0, 7: 1, 8: 7, 70: 7, 71: 7, 80: 8, 700: 70}
    assert named(tree, filters={}) == {
        1: ("gateway", "gateway"),
        **dict.fromkeys((7, 8, 70, 71), ("gate", "gate")),
        80: ("stray", "below process 8"),
        700: ("stray", "below process 70"),
    }


def test_a_gate_whose_template_has_ended_is_the_gate_still() -> None:
    roles = named({1: 0, 8: 1, 70: 1}, filters={})
    assert roles == {1: ("gateway", "gateway"), 8: ("gate", "gate"), 70: ("gateway", "gateway")}


def test_what_an_engine_left_to_the_nursery_keeps_nothing() -> None:
    assert named({1: 0, 2: 1, 21: 2}, filters={21: 1})[21] == ("stray", "below process 2")


def test_a_keeper_that_nobody_named_is_one_all_the_same() -> None:
    roles = named({1: 0, 2: 1, 21: 2, 210: 21}, filters={})
    assert roles[21] == ("trusted", "keeper of engine of process 21")
    assert roles[210] == ("engine", "engine of process 21")


def test_a_process_id_that_was_given_again_is_not_trusted() -> None:
    roles = named({1: 0, 2: 1, 20: 2}, filters={}, ticks=TICKS + 1)
    assert {pid: role for pid, (role, _) in roles.items()} == {1: "gateway", 2: "gateway", 20: "gateway"}


def test_a_whole_appliance_is_seen_with_its_seals() -> None:
    with Little() as little:
        seen = until(lambda: (found := little.look()) and len(found) == 6 and len(found[0].threads) == 2 and found)
        by_role: dict[str, list[Process]] = {}
        for process in seen:
            by_role.setdefault(process.place, []).append(process)
        assert {place: len(there) for place, there in by_role.items()} == {
            "gateway": 1, "nursery": 1, "keeper of engine chat": 1, PLACE: 3,
        }  # fmt: skip
        (gateway,), engine = by_role["gateway"], by_role[PLACE]
        assert (gateway.pid, gateway.parent, gateway.user) == (little.process.pid, os.getpid(), os.getuid())
        assert len(gateway.threads) == 2
        for process in (gateway, *engine):
            assert all((thread.seccomp, thread.filters) == (2, 1) for thread in process.threads)
            assert all(thread.capabilities == 0 and thread.no_new_privileges == 1 for thread in process.threads)
            assert all(thread.network == process.namespaces["net"] for thread in process.threads)
            assert all(process.namespaces[kind] != HOST[kind] for kind in ("net", "mnt", "ipc"))
        assert len({process.namespaces["net"] for process in (gateway, *engine)}) == 2
        assert len({process.namespaces["pid"] for process in engine} | {HOST["pid"]}) == 2
        assert all(thread.capabilities == 0 for thread in by_role["keeper of engine chat"][0].threads)


def test_a_thread_from_before_the_seal_is_seen() -> None:
    with Little(before="threading.Thread(target=threading.Event().wait, daemon=True).start()") as little:
        (gateway,) = little.of("gateway")
        (bare,) = (thread for thread in gateway.threads if thread.seccomp == 0)
        assert bare.thread != gateway.pid
        assert bare.network == HOST["net"]


def test_a_process_from_before_the_seal_is_seen() -> None:
    with Little(
        before="extra = subprocess.Popen(['sleep', '60'])", after="import atexit; atexit.register(extra.kill)"
    ) as little:
        gateway, extra = sorted(little.of("gateway"), key=lambda process: process.pid != little.process.pid)
        assert extra.command == "sleep 60"
        assert extra.parent == gateway.pid
        assert [thread.seccomp for thread in extra.threads] == [0]


WITHOUT_ITS_FIRST = """
if os.fork() == 0:
    import ctypes
    threading.Thread(target=threading.Event().wait).start()
    kernel._X86["exit"], kernel._ARM["exit"] = 60, 93  # of this thread alone
    ctypes.CDLL(None).syscall(kernel.number("exit"), 0)
"""


def test_a_process_whose_first_thread_has_ended_is_looked_into_all_the_same() -> None:
    with Little(after=WITHOUT_ITS_FIRST) as little:
        child = until(
            lambda: [each for each in little.of("gateway") if each.pid not in {part.thread for part in each.threads}]
        )[0]
        try:
            assert set(child.namespaces) == set(processes.KINDS)
            assert ("tcp", "listening") in [(each.family, each.state) for each in child.sockets]
            trouble: list[str] = []
            assert [view.place for view in mounts.views([child], trouble)] == ["gateway"]
            assert [network.interfaces for network in sockets.networks([child])] == [{"lo": 0}]
            assert trouble == []
        finally:
            os.kill(child.pid, signal.SIGKILL)


def test_a_process_that_entered_an_engines_network_is_a_stray() -> None:
    with Little() as little, beside(little.keeper, "import signal; signal.pause()") as intruder:
        try:
            (stray,) = little.of("stray")
            assert stray.pid == intruder.pid
        finally:
            intruder.kill()


IN_A_THREAD = """
import threading
from tests.egress.little import enter
def inside():
    enter({}, thread=True)
    {}
    print("there", flush=True)
    threading.Event().wait()
threading.Thread(target=inside).start()
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root has a thread enter a network by itself")
def test_a_process_of_which_one_thread_entered_an_engines_network_is_a_stray() -> None:
    with Little() as little, started_by(IN_A_THREAD.format(little.keeper, "pass")) as intruder:
        try:
            assert [stray.pid for stray in little.of("stray")] == [intruder.pid]
        finally:
            intruder.kill()


def test_what_has_ended_is_no_process_though_nobody_has_reaped_it() -> None:
    with Little(after="os.fork() or os._exit(0)") as little:
        assert [process.pid for process in little.of("gateway")] == [little.process.pid]


@pytest.mark.skipif(os.getuid() != 0, reason="only root has another user's processes to look at")
def test_what_another_user_may_not_see_is_told() -> None:
    with Little() as little:
        nursery, reading = little.nursery, os.pipe()
        if os.fork() == 0:
            try:
                os.setgroups([])
                os.setresuid(65534, 65534, 65534)
                trouble: list[str] = []
                little.look(trouble)
                os.write(reading[1], json.dumps(trouble).encode())
            finally:
                os._exit(0)
        os.wait()
        told = json.loads(os.read(reading[0], 1 << 16))
        assert any(f"process {nursery}: its open descriptors may not be read; verify as root" in line for line in told)
        assert any("its namespaces (net, mnt, pid, ipc, user) may not be read" in line for line in told)


def test_an_ended_gateway_leaves_nothing_to_see() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert processes.look(ended.pid, {}, {}, []) == []
    assert not Path(f"/proc/{ended.pid}").exists()
