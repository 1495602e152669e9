"""Fetches a checkpoint from a model hub, by fetch.py, a program of its own in the preparation environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from appliance.errors import PreparationFailed
from appliance.telemetry import SILENT
from appliance.weights.admission import belongs
from appliance.weights.card import Hub
from appliance.weights.mirror import keep_only
from appliance.weights.outside import is_private

Progress = Callable[[str], None]

FETCHER = Path(__file__).with_name("fetch.py")
MOST_FILES = 10_000
_OURS = ("HF_TOKEN", "SSL_CERT_FILE", "SSL_CERT_DIR")
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")


@dataclass(frozen=True, slots=True)
class Repository:
    """What a hub has at one commit: licence and languages by the hub's word, and the files that belong to a model."""

    commit: str
    licence: str | None
    languages: object
    files: tuple[Mapping[str, Any], ...]
    left_out: tuple[str, ...]


def look(repo: str, revision: str, endpoint: str, environment: Path, progress: Progress) -> Repository:
    """What the repository holds at `revision`. Raises `PreparationFailed`."""
    progress(f"asking {endpoint} for {repo}")
    told = _run(["list", repo, revision], endpoint, environment, Path.cwd(), "", progress)
    files, left = [], []
    if not isinstance(told["files"], list) or len(told["files"]) > MOST_FILES:
        raise PreparationFailed(f"{repo} lists over {MOST_FILES} files; that is no model's.")
    for file in told["files"]:
        path = PurePosixPath(file["name"])
        if path.is_absolute() or ".." in path.parts or not file["name"].isprintable() or "\\" in file["name"]:
            raise PreparationFailed(f"{repo} lists a file that would lie elsewhere: {file['name'][:100]!r}.")
        if not belongs(file["name"]):
            left.append(file["name"])
        elif type(file["bytes"]) is not int or file["bytes"] < 0 or not (file.get("sha256") or file.get("git")):
            raise PreparationFailed(f"The hub names no length or no checksum for {file['name'][:100]!r} of {repo}.")
        else:
            files.append(file)
    if not any(file["name"].endswith(".safetensors") for file in files):
        raise PreparationFailed(
            f"{repo} holds no .safetensors file. Other kinds can run code when they are loaded (pickle), or aren't for "
            "this engine (GGUF, ONNX); take another repository or revision of the model."
        )
    if not re.fullmatch(r"[0-9a-f]{40}", str(told["commit"])):
        raise PreparationFailed(f"{endpoint} names no commit of {repo}, by which it could be had again.")
    return Repository(told["commit"], told["licence"], told["languages"], tuple(files), tuple(left))


def fetch(
    hub: Hub,
    into: Path,
    environment: Path,
    progress: Progress,
    *,
    wanted: Callable[[str], bool] = lambda _: True,
    held: Repository | None = None,
) -> dict[str, str]:
    """Bring the files of `hub` whose names are `wanted` into `into`; returns their SHA-256 by name.

    `held` is what `look` said of that commit, if that was asked already.
    What is there already isn't fetched again, and what the repository doesn't hold is removed. Raises
    `PreparationFailed`; parts that have arrived stay in `into` for the next try.
    """
    held = held or look(hub.repo, hub.revision, hub.endpoint, environment, progress)
    if held.commit != hub.revision:
        raise PreparationFailed(f"{hub.endpoint} answers with another commit of {hub.repo} than was asked for.")
    into.mkdir(exist_ok=True)
    keep_only(into, [file["name"] for file in held.files])
    files = [file for file in held.files if wanted(file["name"])]
    arrived = sum(path.stat().st_size for path in into.rglob("*") if path.is_file())
    needed, room = sum(file["bytes"] for file in files) - arrived, shutil.disk_usage(into).free
    if needed > room:
        raise PreparationFailed(
            f"{hub.repo} needs {needed / 1e9:.1f} GB more on the disk of {into}, and {room / 1e9:.1f} GB are free. "
            "Make room, then run this again."
        )
    order = "".join(json.dumps(dict(file)) + "\n" for file in files)
    told = _run(["get", hub.repo, hub.revision, str(into)], hub.endpoint, environment, into, order, progress)
    return dict(told["fetched"])


def _run(
    arguments: list[str], endpoint: str, environment: Path, folder: Path, order: str, progress: Progress
) -> dict[str, Any]:
    """Run fetch.py in `folder`; returns the last that it told."""
    python = environment / "bin" / "python"
    if not python.is_file():
        raise PreparationFailed(f"{environment} isn't there. Run `make {environment.name}`, which sets it up.")
    private = is_private(endpoint)
    if not endpoint.startswith("https:") and not private:
        raise PreparationFailed(f"{endpoint} isn't on a private network: use `https:` for it.")
    told: dict[str, Any] = {}
    with tempfile.TemporaryFile() as ordered:
        ordered.write(order.encode())
        ordered.seek(0)
        with subprocess.Popen(
            [str(python), str(FETCHER), *arguments],
            stdin=ordered,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={
                "PATH": os.defpath,
                "HOME": str(folder),
                **SILENT,
                "HF_HUB_OFFLINE": "0",
                "HF_ENDPOINT": endpoint.rstrip("/"),
                **({"STAY_IN_THE_HOUSE": "1"} if private else {}),
                **{name: os.environ[name] for name in _OURS if name in os.environ},
                **{name: os.environ[name] for name in _PROXIES if name in os.environ and not private},
            },
        ) as process:
            try:
                for line in process.stdout or ():
                    told = json.loads(line)
                    if "progress" in told:
                        progress(told["progress"])
            except BaseException:
                process.kill()
                raise
    if process.returncode or "refused" in told:
        raise PreparationFailed(told.get("refused") or f"The download ended with status {process.returncode}.")
    return told
