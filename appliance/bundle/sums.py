"""SHA256SUMS: written over every file of a bundle, and held against it before anything of it is used."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from appliance.errors import BundleInvalid

NAME = "SHA256SUMS"
MADE_HERE = frozenset(
    (".venvs", "state", "results", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".import_linter_cache", ".hypothesis")
)
"""Folders at the top that installing and serving make; they hold nothing that a bundle brings."""
_TELL_EVERY_BYTES = 1 << 28


def write(bundle: Path, say: Callable[[str], None]) -> str:
    """Record every file below `bundle`; returns the SHA-256 of the record itself.

    The record appears in one step: a folder without it is no bundle.
    """
    names = sorted(_present(bundle))
    lines = (f"{digest}  {name}\n" for name, digest in _digests(bundle, names, say))
    part = bundle / f"{NAME}.part"
    part.write_text("".join(lines))
    part.rename(bundle / NAME)
    return _sha256(bundle / NAME)


def read(bundle: Path) -> dict[str, str]:
    """The recorded files, as paths relative to `bundle` with `/`, and their SHA-256 in lower-case hex.

    Raises `BundleInvalid` where there is no record, or one that `sha256sum` wouldn't write.
    """
    try:
        lines = (bundle / NAME).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        raise BundleInvalid(
            f"{bundle / NAME} is missing or can't be read: this is no whole bundle. Copy or unpack it again; if it "
            "was never whole, run `appliance bundle` again where it was made."
        ) from cause
    recorded: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = re.fullmatch(r"([0-9a-f]{64})  (\S.*)", line)
        if match is None or match[2].startswith("/") or ".." in PurePosixPath(match[2]).parts:
            raise BundleInvalid(f"{bundle / NAME}, line {number}, isn't a checksum of a file in it. {_REMEDY}")
        recorded[match[2]] = match[1]
    return recorded


def verify(bundle: Path, say: Callable[[str], None]) -> list[str]:
    """Read every file and compare it with the record; about a second per GB.

    Raises `BundleInvalid` naming the first file that is missing, differs, is a link or was never recorded. What an
    administrator adds or edits (configs, models of their own) is not the bundle's: returned are the edited configs.
    """
    recorded = read(bundle)
    present = _present(bundle) - {NAME}
    for name in sorted(present):
        if (bundle / name).is_symlink():
            raise BundleInvalid(f"{name} is a link, and a bundle has none. {_REMEDY}")
    if missing := sorted(recorded.keys() - present):
        raise BundleInvalid(f"{missing[0]} is missing. {_REMEDY}")
    for name in sorted(present - recorded.keys()):
        if not _own(name, recorded):
            raise BundleInvalid(
                f"{name} doesn't belong to this bundle. If it is left from an older one or got there by mistake, "
                "remove it; otherwise find out who put it there."
            )
    edited: list[str] = []
    for name, digest in _digests(bundle, sorted(recorded), say):
        if digest == recorded[name]:
            continue
        if not _config(name):
            raise BundleInvalid(f"{name} isn't the file that was bundled: its checksum differs. {_REMEDY}")
        edited.append(name)
    return edited


def _own(name: str, recorded: Mapping[str, str]) -> bool:
    """Whether the file `name`, which isn't recorded, is an administrator's: a config, or (part of) another model."""
    match PurePosixPath(name).parts:
        case ("models", model, part, *inside):
            folder = f"models/{model}/{part}/" if inside else f"models/{model}/"
            return not any(each.startswith(folder) for each in recorded)
        case _:
            return _config(name)


def _config(name: str) -> bool:
    return PurePosixPath(name).parent == PurePosixPath("configs") and name.endswith(".yaml")


def _present(bundle: Path) -> set[str]:
    """Every file and every link below `bundle`, but for what is made on the spot. Links are not followed."""
    found: set[str] = set()
    for folder, folders, files in os.walk(bundle):
        here = Path(folder)
        made = MADE_HERE if here == bundle else {"__pycache__"}
        links = [name for name in folders if name not in made and (here / name).is_symlink()]
        folders[:] = [name for name in folders if name not in made and name not in links]
        found.update((here / name).relative_to(bundle).as_posix() for name in (*files, *links))
    return found


def _digests(bundle: Path, names: list[str], say: Callable[[str], None]) -> Iterator[tuple[str, str]]:
    total = sum((bundle / name).stat().st_size for name in names)
    done = told = 0
    for name in names:
        if done >= told:
            say(f"checksums: {done / 1e9:.1f} of {total / 1e9:.1f} GB")
            told = done + _TELL_EVERY_BYTES
        yield name, _sha256(bundle / name)
        done += (bundle / name).stat().st_size


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_REMEDY = "Copy or unpack the bundle again; if that doesn't help, make it again."
