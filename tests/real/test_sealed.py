"""The seal and the separation, read off the running appliance by the kernel's own record."""

from __future__ import annotations

import json
import os
from pathlib import Path

import openai
import psutil

from appliance.seal import probes
from appliance.seal.evidence import evidence
from tests.real.house import Appliance, network_of


def test_every_thread_of_every_engine_is_sealed_in_a_network_of_its_own(appliance: Appliance) -> None:
    networks = set()
    for model in ("chat", "embed"):
        processes = appliance.engine(model)
        assert {"server", "core", "worker"} <= set(processes)
        threads = [thread for process in processes.values() for thread in evidence(process.pid)]
        assert len(threads) > 10
        for thread in threads:
            assert (thread.seccomp, thread.no_new_privileges, thread.capabilities) == (2, 1, 0), thread
        (network,) = {thread.network for thread in threads}
        networks.add(network)
    assert len(networks) == 2, "the engines share a network"
    assert network_of(os.getpid()) not in networks


def test_every_thread_of_the_gateway_is_sealed(appliance: Appliance) -> None:
    for thread in evidence(appliance.process.pid):
        assert (thread.seccomp, thread.no_new_privileges, thread.capabilities) == (2, 1, 0), thread


def test_the_gateway_holds_neither_torch_nor_vllm_and_is_small(appliance: Appliance) -> None:
    engine = Path(f"/proc/{appliance.engine('chat')['worker'].pid}/maps").read_text()
    gateway = Path(f"/proc/{appliance.process.pid}/maps").read_text()
    for library in ("/site-packages/torch/", "/site-packages/vllm/"):
        assert library in engine, "it would not be seen"
        assert library not in gateway
    assert psutil.Process(appliance.process.pid).memory_info().rss < 200e6


def test_the_engine_needs_no_compiler(appliance: Appliance, gpt: openai.OpenAI) -> None:
    """Logprobs and sampling once made a C++ compiler run for half a minute at the first request."""
    gpt.chat.completions.create(
        model="chat", messages=[{"role": "user", "content": "Hi"}], max_completion_tokens=2, logprobs=True,
        top_logprobs=2, temperature=1, top_p=0.9, frequency_penalty=0.5, extra_body={"top_k": 5, "min_p": 0.1},
    )  # fmt: skip
    assert (appliance.state / "cache").is_dir()
    assert not list((appliance.state / "cache").rglob("*.so"))


def test_a_verification_of_the_running_appliance_holds(appliance: Appliance) -> None:
    """The whole matrix, tried from inside the seals in which vLLM and the gateway are at work."""
    done = appliance.run("egress", "verify", "--json")
    report = json.loads(done.stdout)
    assert [violation for check in report["checks"] for violation in check["violations"]] == []
    assert done.returncode == 0
    tried = {(probe["place"], probe["attempt"]): probe for probe in report["findings"]["probes"]}
    for place in ("gateway", "engine chat", "engine embed"):
        for attempt in probes.SENDING - set(probes.REUSES):
            assert not tried[place, attempt]["arrived"]
            assert tried[place, attempt]["control_arrived"]
    looked_at = {process["pid"] for process in report["findings"]["processes"]}
    assert looked_at >= {process.pid for model in ("chat", "embed") for process in appliance.engine(model).values()}
