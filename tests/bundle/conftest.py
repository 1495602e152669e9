"""A small checkout with small packages, of which real bundles are made in a second."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance.bundle import collect
from appliance.config import load
from tests.fakes.house import ROOT
from tests.weights.conftest import write_card, write_checkpoint

SETS = {
    "uv": ["plain"],
    "gateway": ["plain", "licensed"],
    "engine-cuda": ["licensed", "native"],
    "prepare": [],
    "evaluate": [],
    "dev": [],
}


def write_wheel(folder: Path, name: str, *metadata: str, tag: str = "py3-none-any") -> Path:
    """A wheel that pip takes, of version 1.0, with these lines in its metadata."""
    record = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": b"",
        f"{record}/METADATA": "\n".join(["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *metadata]).encode(),
        f"{record}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    lines = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode().rstrip('=')},{len(body)}"
        for path, body in files.items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}-1.0-{tag}.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for path, body in (*files.items(), (f"{record}/RECORD", "\n".join([*lines, f"{record}/RECORD,,"]))):
            archive.writestr(path, body)
    return file


def pinned(wheel: Path) -> str:
    """The line of a lock for `wheel`."""
    name = wheel.name.partition("-")[0]
    return f"{name}==1.0 \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n    # via somebody\n"


def write_shelf(folder: Path) -> Path:
    """Where pip finds the packages."""
    write_wheel(folder, "plain", "License: MIT")
    write_wheel(folder, "licensed", "License-Expression: Apache-2.0 OR MIT")
    write_wheel(folder, "native", tag="cp311-cp311-manylinux_2_31_x86_64")
    return folder


def write_checkout(folder: Path, shelf: Path) -> Path:
    """A git checkout with the real Makefile and code, locks of a few small packages, and the model `tiny`."""
    shutil.copytree(ROOT / "appliance", folder / "appliance", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Makefile", folder)
    wheels = {file.name.partition("-")[0]: file for file in shelf.iterdir()}
    (folder / "configs" / "locks").mkdir(parents=True)
    for name, packages in SETS.items():
        (folder / "configs" / "locks" / f"{name}.txt").write_text("".join(pinned(wheels[each]) for each in packages))
    write_card(folder / "models" / "tiny")
    write_checkpoint(folder / "models" / "tiny" / "incoming")
    (folder / "models" / ".gitignore").write_text("/*/*\n!/*/card.yaml\n")
    (folder / "configs" / "appliance.yaml").write_text(yaml.safe_dump({"models": {"chat": {"card": "tiny"}}}))
    (folder / ".gitignore").write_text("/.venvs/\n")
    (folder / ".venvs").mkdir()
    (folder / ".venvs" / "uv").symlink_to(ROOT / ".venvs" / "uv")
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def make(checkout: Path, shelf: Path, output: Path, **changed: Any) -> collect.Made:
    """A bundle of `checkout` with the packages of `shelf`, and without the sets that may be left out."""
    order = collect.Order(**{"device": "cuda", "without": ("tests", "preparation", "evaluation"), **changed})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect, "CHECKOUT", checkout)
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(shelf))
        return collect.make(order, load(checkout / "configs" / "appliance.yaml"), output, lambda _: None)


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Packages to change."""
    return write_shelf(tmp_path / "shelf")


@pytest.fixture
def checkout(tmp_path: Path, shelf: Path) -> Path:
    """A checkout to change."""
    return write_checkout(tmp_path / "checkout", shelf)


@pytest.fixture
def bundle(checkout: Path, shelf: Path, tmp_path: Path) -> Callable[..., collect.Made]:
    """Makes a bundle of the checkout in a folder of that name."""
    return lambda name="made", **changed: make(checkout, shelf, tmp_path / name, **changed)


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> collect.Made:
    """A bundle of an unchanged checkout, to look at."""
    folder = tmp_path_factory.mktemp("original")
    shelf = write_shelf(folder / "shelf")
    return make(write_checkout(folder / "checkout", shelf), shelf, folder / "made")


@pytest.fixture
def unpacked(original: collect.Made, tmp_path: Path) -> Path:
    """The same, to change."""
    return shutil.copytree(original.folder, tmp_path / "unpacked")


def git(folder: Path, *arguments: str) -> None:
    """Run git in `folder`, as nobody in particular."""
    who = {f"GIT_{role}_{what}": "test@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    subprocess.run(["git", "-C", folder, *arguments], check=True, env={**os.environ, **who}, stdout=subprocess.DEVNULL)


def commit(folder: Path) -> None:
    """Commit all that git doesn't ignore."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "as it is")
