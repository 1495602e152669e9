"""What engines may be given of this host's files, settled before the gateway seals itself.

The nursery starts engines outside the gateway's seal, so a gateway that was taken over must not choose which files
they see: a daemon's socket among them would be a way out, and a log anywhere would be code that somebody else runs.
All folders are open from before the seal, and what lies below is opened through no symbolic link, so that none that
is made or swapped later leads anywhere. Imports the standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from appliance.seal import kernel

_LOG = re.compile(r"[\w.:-]+\.log")
_RUN = re.compile(r"e\d+")
_LONGEST_GRACE = 3600.0
_FOLDER = os.O_PATH | os.O_DIRECTORY


class Refused(Exception):
    """What was asked for isn't given; the words go on from `this nursery`."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """An engine's order, right in every part, its files open: each path comes with the descriptor of what it shows."""

    command: list[str]
    environment: dict[str, str]
    log: int
    readable: dict[Path, int]
    writable: dict[Path, int]
    best_effort: bool
    grace: float
    gives_way: bool = False


@dataclass(frozen=True, slots=True)
class Given:
    """Path and open descriptor of `logs`, `run`, `cache` and, where they are there, `models`, `environment` and
    `interpreter`; the state folder; and the programs that may be started."""

    state: str
    folders: Mapping[str, tuple[str, int]]
    programs: list[str]

    @classmethod
    def open(cls, state: Path, models: Path, environment: Path) -> Self:
        """Open all folders. Raises OSError where one of the state's isn't there."""
        state, models, environment = state.resolve(), models.resolve(), environment.resolve()
        python = environment / "bin" / "python"
        own = [state / name for name in ("logs", "run", "cache")]
        other = {"models": models, "environment": environment, "interpreter": python.resolve().parents[1]}
        folders = {path.name: (str(path), os.open(path, _FOLDER | os.O_NOFOLLOW)) for path in own}
        folders |= {name: (str(path), os.open(path, _FOLDER)) for name, path in other.items() if path.is_dir()}
        harmless = shutil.which("true", path=os.defpath)
        return cls(str(state), folders, [str(python), *([harmless] if harmless else [])])

    @classmethod
    def told(cls, line: str) -> Self:
        """What another process opened and passed on with its descriptors."""
        return cls(**json.loads(line))

    def tell(self) -> str:
        """For `told`."""
        return json.dumps({"state": self.state, "folders": self.folders, "programs": self.programs})

    @property
    def descriptors(self) -> list[int]:
        """Those of all folders."""
        return [descriptor for _, descriptor in self.folders.values()]

    def admit(self, wanted: Mapping[str, Any], held: contextlib.ExitStack) -> Admitted:
        """Open what an engine is to have; `held` closes it. Raises `Refused` for anything else than it may have."""
        match wanted:
            case {
                "command": [str(program), *arguments], "env": dict(environment), "log": str(log), "grace": grace,
                "readable": list(readable), "writable": list(writable), "best_effort": bool(best_effort),
            } if _all_text(arguments, environment, environment.values(), readable, writable):  # fmt: skip
                pass
            case _:
                raise Refused("was sent an order that it can't read")
        if program not in self.programs:
            raise Refused(f"runs only {' and '.join(self.programs)}, not {program!r}")
        if not isinstance(grace, int | float) or not 0 <= grace <= _LONGEST_GRACE:
            raise Refused(f"gives a grace of 0 to {_LONGEST_GRACE:.0f} seconds, not {grace!r}")
        return Admitted(
            command=[program, *arguments],
            environment=environment,
            log=self._log(log, held),
            readable=self._shown() | {Path(path): self._readable(path, held) for path in self._asked(readable)},
            writable={Path(path): self._writable(path, held) for path in writable},
            best_effort=best_effort,
            grace=grace,
            gives_way=wanted.get("gives_way") is True,
        )

    def _shown(self) -> dict[Path, int]:
        """What every engine sees: its Python."""
        found = (self.folders.get(name) for name in ("environment", "interpreter"))
        return {Path(path): descriptor for path, descriptor in filter(None, found)}

    def _asked(self, readable: list[str]) -> list[str]:
        return [path for path in readable if Path(path) not in self._shown()]

    def _log(self, path: str, held: contextlib.ExitStack) -> int:
        folder, descriptor = self.folders["logs"]
        parent, _, name = path.rpartition("/")
        if parent != folder or not _LOG.fullmatch(name):
            raise Refused(f"writes logs only as {folder}/NAME.log, not as {path!r}")
        # without waiting for whoever reads, should it be a pipe
        log = _open(descriptor, name, path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, held)
        found = os.fstat(log)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise Refused(f"writes to plain files with one name only; remove {path!r}")
        return log

    def _readable(self, path: str, held: contextlib.ExitStack) -> int:
        if "models" not in self.folders:
            raise Refused(f"was started without a models folder, so it shows nothing of {path!r}; start again with one")
        folder, descriptor = self.folders["models"]
        if not _beneath(folder, path):
            raise Refused(f"shows engines only what lies in {folder}, not {path!r}")
        if _beneath(self.state, path) or _beneath(path, self.state):
            raise Refused(f"shows engines nothing of the state folder {self.state}; move {path!r} out of it")
        return _open(descriptor, os.path.relpath(path, folder), path, _FOLDER, held)

    def _writable(self, path: str, held: contextlib.ExitStack) -> int:
        cache, descriptor = self.folders["cache"]
        if path == cache:
            return descriptor
        folder, descriptor = self.folders["run"]
        parent, _, name = path.rpartition("/")
        if parent != folder or not _RUN.fullmatch(name):
            raise Refused(f"lets engines write only to {cache} and {folder}/eN, not to {path!r}")
        return _open(descriptor, name, path, _FOLDER, held)


def _all_text(*several: Any) -> bool:
    return all(isinstance(each, str) and "\0" not in each for values in several for each in values)


def _beneath(folder: str, path: str) -> bool:
    return os.path.normpath(path) == path and Path(path).is_relative_to(folder)


def _open(folder: int, name: str, path: str, flags: int, held: contextlib.ExitStack) -> int:
    try:
        opened = kernel.open_beneath(folder, name, flags, 0o600 if flags & os.O_CREAT else 0)
    except OSError as error:
        why = error.strerror
        if error.errno in (errno.ELOOP, errno.EXDEV):
            why = "it is, or lies behind, a symbolic link; put the thing itself there, or mount it there"
        elif error.errno == errno.ENOENT:
            why = "it has to exist"
        raise Refused(f"can't open {path!r}: {why}") from error
    except UnicodeEncodeError as error:
        raise Refused(f"can't open {path!r}: no such name") from error
    held.callback(os.close, opened)
    return opened
