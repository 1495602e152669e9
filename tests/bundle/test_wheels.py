"""Locks and wheels: only a file with a locked hash stands for a package."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.bundle import locks, wheels
from appliance.bundle.sbom import Licence
from appliance.errors import BundleFailed
from tests.bundle.conftest import pinned, write_wheel
from tests.fakes.house import ROOT


@pytest.mark.parametrize("lock", sorted((ROOT / "configs" / "locks").glob("*.txt")), ids=lambda lock: lock.stem)
def test_every_lock_is_understood_line_by_line(lock: Path) -> None:
    if lock.stem in ("with-gpu", "without-clouds", "without-gpu", "without-sdk"):  # overrides, no locks
        with pytest.raises(BundleFailed, match="isn't locked by version and hash"):
            locks.read(lock)
        return
    named = [line for line in lock.read_text().splitlines() if "==" in line and not line.lstrip().startswith("#")]
    pins = locks.read(lock)
    assert [f"{pin.name}=={pin.version}" for pin in pins] == [line.split()[0] for line in named]
    assert sum(len(pin.hashes) for pin in pins) == lock.read_text().count("--hash=")


def test_the_sets_of_a_bundle() -> None:
    assert locks.chosen("cpu", ()) == ("uv", "gateway", "engine-cpu", "prepare", "evaluate", "dev")
    assert locks.chosen("cuda", ("tests", "preparation", "evaluation")) == ("uv", "gateway", "engine-cuda")
    for name in (*locks.chosen("cpu", ()), *locks.chosen("cuda", ())):
        assert (ROOT / locks.FOLDER / f"{name}.txt").is_file()


def test_a_file_is_taken_by_its_hash_and_what_nobody_wants_goes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(pinned(write_wheel(tmp_path / "wheels", "one")))
    write_wheel(tmp_path / "wheels", "older")
    pins = locks.read(tmp_path / "a.txt")
    (found,) = wheels.match({"gateway": pins, "dev": pins}, tmp_path / "wheels")
    assert (found.file.name, found.sets) == ("one-1.0-py3-none-any.whl", ("gateway", "dev"))
    assert [file.name for file in (tmp_path / "wheels").iterdir()] == ["one-1.0-py3-none-any.whl"]


def test_a_file_of_the_right_name_with_another_hash_does_not_do(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(pinned(write_wheel(tmp_path / "wheels", "one")))
    write_wheel(tmp_path / "wheels", "one", "Summary: changed")
    with pytest.raises(BundleFailed, match=r"is one 1\.0 as the lock of gateway has it"):
        wheels.match({"gateway": locks.read(tmp_path / "a.txt")}, tmp_path / "wheels")


def test_the_oldest_system_is_that_of_the_most_demanding_wheel() -> None:
    old = "a-1-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.manylinux_2_28_x86_64.whl"
    assert wheels.glibc([]) == "2.0"
    assert wheels.glibc([old, "b-1-py3-none-any.whl", "c-1-py3-none-manylinux1_x86_64.whl"]) == "2.17"
    assert wheels.glibc([old, "d-1-cp311-cp311-manylinux_2_34_x86_64.whl"]) == "2.34"


@pytest.mark.parametrize("reached", [True, False])
def test_uv_is_asked_for_the_index_of_torch_for_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, reached: bool
) -> None:
    """In uv's own words, but not by uv: nobody who runs this can count on a way to that index."""
    lock = tmp_path / "engine-cpu.txt"
    lock.write_text(pinned(write_wheel(tmp_path, "torch")).replace("==1.0", "==1.0+cpu"))
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    answer = "echo 'torch==1.0+cpu'; echo '    # from https://example.org/whl/cpu'"
    uv.write_text(f"#!/bin/sh\n{answer if reached else 'echo  cause: dns error >&2; exit 2'}\n")
    uv.chmod(0o755)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    if reached:
        assert wheels.index(tmp_path, lock) == ["--extra-index-url", "https://example.org/whl/cpu"]
    else:
        with pytest.raises(BundleFailed, match=r"can't be reached: cause: dns error.*PIP_FIND_LINKS=FOLDER"):
            wheels.index(tmp_path, lock)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert wheels.index(tmp_path, lock) == []


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (["License-Expression: MIT OR Apache-2.0", "License: other"], Licence("MIT OR Apache-2.0", spdx=True)),
        (["License: BSD 3-Clause"], Licence("BSD 3-Clause", spdx=False)),
        (
            ["License: Permission is", "        hereby granted", "Classifier: License :: OSI Approved :: MIT License"],
            Licence("MIT License", spdx=False),
        ),
        (["License: Permission is", "        hereby granted"], Licence("Permission is", spdx=False)),
        (["Classifier: License :: OSI Approved"], None),
        ([], None),
    ],
)
def test_a_licence_is_read_from_the_wheel(tmp_path: Path, metadata: list[str], expected: Licence | None) -> None:
    assert wheels.licence(write_wheel(tmp_path, "one", *metadata)) == expected
