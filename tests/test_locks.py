"""Every package that is installed is pinned and hashed: what an index serves can't differ from what was locked."""

from __future__ import annotations

import re

import pytest

from tests.fakes.house import ROOT

LOCKS = ROOT / "configs" / "locks"
OVERRIDES = {"with-gpu.txt", "without-clouds.txt", "without-gpu.txt", "without-sdk.txt"}
"""Read by `make lock` only; nothing is installed from them."""
LOCKED = sorted({path.name for path in LOCKS.glob("*.txt")} - OVERRIDES)
REQUIREMENT = re.compile(
    r"[a-z0-9][a-z0-9._-]*(\[[a-z0-9,_-]+\])?==[0-9][A-Za-z0-9.+!]*( ; [^@]+?)?( +--hash=sha256:[0-9a-f]{64})+ *"
)
"""Neither a URL or a path, nor an option like --index-url, nor a range, nor anything without a hash."""
MAKEFILE = (ROOT / "Makefile").read_text()


def requirements(lock: str) -> list[str]:
    """Each requirement of a lock with its hashes on one line, without comments."""
    plain = re.sub(r"^\s*#.*\n?|\s+#.*$", "", (LOCKS / lock).read_text(), flags=re.MULTILINE)
    return plain.replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("lock", LOCKED)
def test_every_requirement_is_pinned_and_hashed_and_comes_from_an_index(lock: str) -> None:
    found = requirements(lock)
    assert found
    for line in found:
        assert REQUIREMENT.fullmatch(line), line[:200]


@pytest.mark.parametrize("lock", LOCKED)
def test_no_package_is_locked_twice(lock: str) -> None:
    names = [line.split("==")[0] for line in requirements(lock)]
    assert len(names) == len(set(names))


def test_every_lock_is_installed_by_its_hashes_and_nothing_else_is_installed() -> None:
    installs = [line for line in MAKEFILE.splitlines() if re.search(r"pip (sync|install)\b", line)]
    assert len(installs) == 2
    assert all("--require-hashes" in line for line in installs)
    assert not re.search(r"pip install(?! .*--require-hashes)", MAKEFILE)


@pytest.mark.parametrize("lock", LOCKED)
def test_every_lock_belongs_to_an_environment(lock: str) -> None:
    assert re.search(rf"^\.venvs/\S+: \$\(LOCKS\)/{re.escape(lock)}|^\$\(UV\): \$\(LOCKS\)/{re.escape(lock)}",
                     MAKEFILE, re.MULTILINE)  # fmt: skip


@pytest.mark.parametrize("override", sorted(OVERRIDES))
def test_overrides_are_never_installed(override: str) -> None:
    uses = [line for line in MAKEFILE.splitlines() if override in line]
    assert uses
    assert all("--override" in line and "call compile" in line for line in uses)
