"""What a figure was measured on: without it a figure says nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from appliance import __version__


def describe(*packages: str) -> dict[str, Any]:
    """Hardware, system, versions of `packages` and the time, ready for JSON."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": _gpus(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "appliance": __version__,
        "packages": {name: _version(name) for name in packages},
    }


def machine(setting: dict[str, Any]) -> str:
    """The hardware of `describe`'s result, in words."""
    gpus = ", ".join(setting["gpus"]) or "no GPU"
    return f"{setting['processor']}, {setting['cores']} cores, {setting['memory_gib']:.0f} GiB, {gpus}"


def sentence(setting: dict[str, Any]) -> str:
    """`describe`'s result in one line."""
    versions = f"{setting['system']}, Python {setting['python']}, appliance {setting['appliance']}"
    return f"{setting['date'][:10]}, {machine(setting)}, {versions}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _gpus() -> list[str]:
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"],  # noqa: S607
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in listing.stdout.splitlines() if line.strip()]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
