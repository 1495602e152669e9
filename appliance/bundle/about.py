"""What a bundle is and what it needs of a machine."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from appliance.errors import BundleInvalid

NAME = "offline/bundle.json"


@dataclass(frozen=True, slots=True)
class About:
    """offline/bundle.json. `sets` are the locks whose packages it holds, `glibc` the oldest that they run on."""

    version: str
    made: str
    device: str
    python: str
    machine: str
    glibc: str
    sets: tuple[str, ...]
    models: tuple[str, ...]

    def write(self, bundle: Path) -> None:
        """Write it into the folder `bundle`."""
        (bundle / NAME).write_text(json.dumps(asdict(self), indent=1) + "\n")


def read(bundle: Path) -> About:
    """What `bundle` is; raises `BundleInvalid` where nothing says so."""
    try:
        told = json.loads((bundle / NAME).read_bytes())
        return About(**{**told, "sets": tuple(told["sets"]), "models": tuple(told["models"])})
    except (OSError, ValueError, TypeError, KeyError) as cause:
        raise BundleInvalid(
            f"{bundle / NAME} can't be read, so this is no bundle, or one of another version. "
            "Unpack it again, all of it."
        ) from cause


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that a bundle is unpacked on. `glibc` is empty where the C library is another."""

    python: str
    machine: str
    glibc: str
    device: str


def this_machine(device: str) -> Machine:
    """The one that this runs on; `device` is what it is to serve on."""
    library, version = platform.libc_ver()
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Machine(python, platform.machine(), version if library == "glibc" else "", device)


def check(about: About, machine: Machine) -> None:
    """Raises `BundleInvalid` saying why the packages can't run on `machine`, and what to do."""
    again = "on a machine with a network, run `appliance bundle"
    if machine.machine != about.machine:
        raise BundleInvalid(
            f"This bundle is for {about.machine}, this machine is {machine.machine}. There is no bundle for it: the "
            f"packages are locked for {about.machine} only."
        )
    if machine.python != about.python:
        raise BundleInvalid(
            f"This bundle is for Python {about.python}, this is {machine.python}. Debian 12 has it (apt install "
            f"python3 python3-venv). If it is elsewhere: make PYTHON=/path/to/python{about.python} install-offline"
        )
    if _parts(machine.glibc) < _parts(about.glibc):
        raise BundleInvalid(
            f"The packages need glibc {about.glibc} or newer, this system has {machine.glibc or 'another C library'}. "
            "Install on Debian 12 or newer."
        )
    if machine.device == about.device:
        return
    if about.device == "cuda":
        raise BundleInvalid(
            "This bundle is for NVIDIA GPUs, and no driver is loaded here (/proc/driver/nvidia/version is missing). "
            f"Install the driver, or, {again} --device cpu` and bring that one."
        )
    raise BundleInvalid(
        "This bundle holds the engine for CPUs, and this machine has an NVIDIA GPU. To use that, "
        f"{again} --device cuda` and bring that one. To leave it unused: `make DEVICE=cpu install-offline`, "
        "`engines: {device: cpu}` in the config, and DEVICE=cpu with each `make` from then on."
    )


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
