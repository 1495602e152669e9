"""Where a new model is made before it stands under models/, whole, in one step."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from appliance.errors import PreparationFailed
from appliance.weights.places import alone

FOLDER = ".adding"
_NAME = re.compile(r"(?!evals$)[a-z0-9][a-z0-9._-]{0,63}")
"""What a model may be called: in `evals` lie the company's golden sets."""

Progress = Callable[[str], None]


@dataclass(slots=True)
class Stage:
    """A folder in which a model is made, and where it will stand. `kept`: what lies there serves the next try."""

    folder: Path
    home: Path
    kept: bool = False

    def write_card(self, comment: str, card: Mapping[str, Any]) -> None:
        """Write card.yaml with a comment at its head."""
        head = "".join(f"# {line}\n" for line in comment.splitlines())
        body = yaml.safe_dump(dict(card), sort_keys=False, allow_unicode=True, width=110)
        (self.folder / "card.yaml").write_text(head + body, encoding="utf-8")

    def finish(self) -> Path:
        """Put the model in place."""
        self.folder.rename(self.home)
        return self.home


@contextlib.contextmanager
def stage(models: Path, name: str, progress: Progress) -> Iterator[Stage]:
    """A folder for the new model `name`; one at a time on this machine, another waits.

    What a killed run left is there, and what a failed one leaves goes away unless it is `kept`. Raises
    `PreparationFailed` for a name that is taken, or none.
    """
    if not _NAME.fullmatch(name):
        raise PreparationFailed(
            f"{name[:64]!r} is no name for a model: a-z, 0-9 and .-_ only, 64 at most, and not `evals`. Give "
            "one by --as."
        )
    models = models.absolute()
    try:
        (models / FOLDER).mkdir(exist_ok=True)
        with alone(models / FOLDER, progress):
            if (models / name).exists():
                raise PreparationFailed(f"{models / name} is there already. Give another name by --as.")
            made = Stage(models / FOLDER / name, models / name)
            made.folder.mkdir(exist_ok=True)
            try:
                yield made
            finally:
                if not made.kept or not any(path.is_file() for path in made.folder.rglob("*")):
                    shutil.rmtree(made.folder, ignore_errors=True)
    except OSError as cause:
        raise PreparationFailed(
            f"{cause.filename or models}: {cause.strerror or cause}. Mend that, then run the same command again."
        ) from cause
