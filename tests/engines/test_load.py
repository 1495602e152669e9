"""What an engine says of its work: read from vLLM's metrics, as 0.32 writes them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from appliance.engines import load
from appliance.engines.load import Load
from appliance.engines.upstream import Upstream
from appliance.errors import UpstreamFailed

METRICS = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="chat"} RUNNING
vllm:num_requests_waiting{engine="0",model_name="chat"} WAITING
vllm:num_requests_waiting_by_reason{engine="0",model_name="chat",reason="capacity"} 5.0
vllm:kv_cache_usage_perc{engine="0",model_name="chat"} 0.25
vllm:prompt_tokens_total{engine="0",model_name="chat"} 465.0
vllm:generation_tokens_total{engine="0",model_name="chat"} 333.0
vllm:generation_tokens_created{engine="0",model_name="chat"} 1.7953304643610623e+09
vllm:iteration_tokens_total_bucket{engine="0",le="+Inf",model_name="chat"} 78.0
vllm:iteration_tokens_total_count{engine="0",model_name="chat"} 78.0
vllm:iteration_tokens_total_sum{engine="0",model_name="chat"} 798.0
"""


@pytest.mark.parametrize(("running", "waiting", "idle"), [(0, 0, True), (7, 0, False), (0, 3, False)])
def test_a_load_is_what_the_counters_say(running: int, waiting: int, idle: bool) -> None:
    text = METRICS.replace(b"RUNNING", b"%d.0" % running).replace(b"WAITING", b"%d.0" % waiting)
    read = load.read(text)
    assert read == Load(running, waiting, 0.25, tokens=465 + 333, moved=465 + 333 + 798)
    assert read.idle is idle


def test_several_engines_behind_one_server_count_together_and_the_fullest_cache_counts() -> None:
    one = METRICS.replace(b"RUNNING", b"2.0").replace(b"WAITING", b"1.0")
    two = one.replace(b'engine="0"', b'engine="1"').replace(b"0.25", b"0.75")
    assert load.read(one + two) == Load(4, 2, 0.75, tokens=2 * 798, moved=2 * (798 + 798))


@pytest.mark.parametrize(
    "text", [b"", b"<html>", b"vllm:other 1\n", b"num_requests_running 1\n", b"vllm:num_requests_running x"]
)
def test_metrics_without_the_counters_say_nothing(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"counters|could not convert"):
        load.read(text)


def test_a_page_may_begin_with_what_is_looked_for_and_end_without_a_newline() -> None:
    assert load.read(b"vllm:num_requests_running 3\nvllm:num_requests_waiting 2") == Load(3, 2, moved=0)


async def test_an_engine_that_can_not_be_asked_is_an_error() -> None:
    with TemporaryDirectory() as folder:
        upstream = Upstream(Path(folder) / "s")
        with pytest.raises(UpstreamFailed):
            await load.ask(upstream)
        upstream.close()


async def test_an_engine_is_asked_over_its_own_socket() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET /metrics ")
        body = METRICS.replace(b"RUNNING", b"2.0").replace(b"WAITING", b"1.0")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    with TemporaryDirectory() as folder:
        async with await asyncio.start_unix_server(answer, Path(folder) / "s"):
            upstream = Upstream(Path(folder) / "s")
            assert (await load.ask(upstream)).waiting == 1
            upstream.close()
