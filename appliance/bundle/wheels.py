"""The packages of a bundle: fetched by pip, held against the locks, and read for what they say of themselves."""

from __future__ import annotations

import os
import re
import subprocess
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from pathlib import Path

from appliance.bundle.locks import Pin
from appliance.bundle.sbom import Licence
from appliance.errors import BundleFailed
from appliance.weights.manifest import sha256

PYTHON = "3.11"
MACHINE = "x86_64"
_NEWEST_GLIBC = 36
"""Of 2.x: Debian 12's."""
_TARGET = [
    "--only-binary", ":all:", "--implementation", "cp", "--python-version", PYTHON,
    "--abi", "cp311", "--abi", "abi3", "--abi", "none",
    *(part for minor in range(_NEWEST_GLIBC, 4, -1) for part in ("--platform", f"manylinux_2_{minor}_{MACHINE}")),
    *(part for old in ("manylinux2014", "manylinux2010", "manylinux1", "linux")
      for part in ("--platform", f"{old}_{MACHINE}")),
]  # fmt: skip
_OLD_NAMES = {"manylinux1": 5, "manylinux2010": 12, "manylinux2014": 17}


@dataclass(frozen=True, slots=True)
class Wheel:
    """One package of a bundle, and the sets that need it."""

    file: Path
    pin: Pin
    sha256: str
    sets: tuple[str, ...]


def fetch(environment: Path, lock: Path, into: Path, arrived: Path, say: Callable[[str], None]) -> None:
    """Download what `lock` names into `into`, every file held to its hashes; what is there already stays.

    pip puts a set into `into` when it is whole; until then its files are in `arrived`, for the next run.
    `environment` holds pip and uv; pip's own settings say where packages come from. Raises `BundleFailed`.
    """
    command = [
        str(environment / "bin" / "python"), "-m", "pip", "download", "--disable-pip-version-check", "--no-input",
        "--progress-bar", "off", "--no-deps", "--require-hashes", *_TARGET, *index(environment, lock),
        "--cache-dir", str(arrived), "--requirement", str(lock), "--dest", str(into),
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        told: list[str] = []
        try:
            for line in pip.stdout or ():
                told.append(line.strip())
                if large := re.search(r"Downloading (\S+ \((?:\d\d[\d.]* M|[\d.]+ G)B\))", line):
                    say(f"fetching {large[1].rsplit('/', 1)[-1]}")
        except BaseException:
            pip.kill()
            raise
    if pip.returncode:
        reason = next((line for line in reversed(told) if line.startswith("ERROR:")), (told or ["it said nothing"])[-1])
        raise BundleFailed(
            f"pip couldn't fetch what {lock} names: {reason} What has arrived is kept; run the same command again."
        )


def index(environment: Path, lock: Path) -> list[str]:
    """pip's options for a lock that names torch's build for CPUs: it isn't on the common index, and uv knows its place.

    Empty where pip was told of a folder that holds it. Raises `BundleFailed` where uv can't reach the index.
    """
    build = re.search(r"^torch==(\S+)\+cpu\b", lock.read_text(), re.MULTILINE)
    if build is None or os.environ.get("PIP_FIND_LINKS"):
        return []
    asked = subprocess.run(
        [str(environment / "bin" / "uv"), "pip", "compile", "--quiet", "--no-deps", "--no-header",
         "--torch-backend", "cpu", "--python-version", PYTHON, "--emit-index-annotation", "-"],
        input=f"torch=={build[1]}", capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"^\s+# from (\S+)$", asked.stdout, re.MULTILINE)
    if found is None:
        raise BundleFailed(
            "PyTorch's own index, which holds torch for CPUs, can't be reached: "
            f"{asked.stderr.strip().rpartition(chr(10))[2].strip()}. If you have its wheel in a folder: "
            "PIP_FIND_LINKS=FOLDER appliance bundle ..."
        )
    return ["--extra-index-url", found[1]]


def match(locks: Mapping[str, Iterable[Pin]], folder: Path) -> tuple[Wheel, ...]:
    """The file of every pin, sorted by name; files that no pin wants are removed from `folder`.

    `locks` maps the name of a set to its pins. Raises `BundleFailed` for a pin without a file that has one of its
    hashes: a file of the right name doesn't do.
    """
    by_hash = {sha256(file): file for file in sorted(folder.iterdir())}
    found: dict[str, Wheel] = {}
    for name, pins in locks.items():
        for pin in pins:
            digest = next((each for each in sorted(pin.hashes) if each in by_hash), None)
            if digest is None:
                raise BundleFailed(
                    f"none of the files that were fetched is {pin.name} {pin.version} as the lock of {name} has it. "
                    "Run the same command again; if that doesn't help, `make lock` and look at what has changed."
                )
            sets = (*found[digest].sets, name) if digest in found else (name,)
            found[digest] = Wheel(by_hash[digest], pin, digest, sets)
    for digest, file in by_hash.items():
        if digest not in found:
            file.unlink()
    return tuple(sorted(found.values(), key=lambda wheel: wheel.file.name.lower()))


def glibc(names: Iterable[str]) -> str:
    """The oldest glibc on which all wheels of these file names run."""
    return f"2.{max((_needs(name) for name in names), default=0)}"


def _needs(name: str) -> int:
    tags = name.removesuffix(".whl").rsplit("-", 1)[-1].split(".")
    newer = [int(tag[1]) for tag in (re.match(r"manylinux_2_(\d+)_", each) for each in tags) if tag]
    older = [minor for each in tags for old, minor in _OLD_NAMES.items() if each.startswith(f"{old}_")]
    return min(newer + older, default=0)


def licence(wheel: Path) -> Licence | None:
    """What a wheel says of its licence; None where it says nothing."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", each))
        told = BytesHeaderParser().parsebytes(archive.read(name))
    if expression := told["License-Expression"]:
        return Licence(str(expression), spdx=True)
    prefix = "License :: "
    classified = [
        str(each).rpartition(" :: ")[2]
        for each in told.get_all("Classifier", [])
        if each.startswith(prefix) and each != f"{prefix}OSI Approved"
    ]
    text = str(told["License"] or "").strip()
    if text and len(text) <= 100 and "\n" not in text:  # some put the whole text there
        return Licence(text, spdx=False)
    if classified:
        return Licence(" and ".join(classified), spdx=False)
    return Licence(text.partition("\n")[0][:100], spdx=False) if text else None
