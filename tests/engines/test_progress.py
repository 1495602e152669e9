"""Signs of life: read from vLLM's log, as 0.32 writes it."""

from __future__ import annotations

from pathlib import Path

from appliance.engines import progress


def test_a_stage_is_the_latest_that_the_log_tells(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert progress.stage(log) == "loading libraries"
    log.write_text("INFO non-default args: {}\n")
    assert progress.stage(log) == "reading the model's configuration"
    log.write_text(log.read_text() + "(EngineCore pid=1) Loading safetensors checkpoint shards: 10%\n")
    assert progress.stage(log) == "loading weights"
    log.write_text(log.read_text() + "INFO:     Application startup complete.\n")
    assert progress.stage(log) == "answering its first request"


TRACEBACK = """\
INFO 11-22 06:54:00 [core.py:1] Initializing a V1 LLM engine
(EngineCore pid=2375) ERROR 11-22 06:54:49 [core.py:1] Traceback (most recent call last):
(EngineCore pid=2375) ERROR 11-22 06:54:49 [core.py:1] ValueError: No available memory for the cache blocks.
(APIServer pid=582) RuntimeError: Engine core initialization failed. See root cause above.
"""


def test_last_words_tell_the_cause_and_not_what_followed_from_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(TRACEBACK)
    words = progress.last_words(log, 1)
    assert "exit status 1" in words
    assert "ValueError: No available memory for the cache blocks." in words
    assert "initialization failed" not in words
    assert str(log) in words


def test_last_words_name_the_signal_and_do_without_a_log(tmp_path: Path) -> None:
    assert "killed by signal 9" in progress.last_words(tmp_path / "none", 137)
    assert "exit status 0" in progress.last_words(tmp_path / "none", 0)


def test_a_huge_log_and_a_huge_line_are_cut(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 2**20 + b"\nValueError: " + b"y" * 5000 + b"\xff\n")
    assert len(progress.last_words(log, 1)) < 300 + len(str(log))
    assert len(progress.tail(log)) <= 64 * 1024
