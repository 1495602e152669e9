"""What every command has, and what several take."""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add(
    group: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    about: str,
    *,
    script: bool = True,
) -> argparse.ArgumentParser:
    """A command in `group`, done by `run`; with `--config`, and with `--json` where it is for scripts, too."""
    command: argparse.ArgumentParser = group.add_parser(
        name, help=summary, description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument(
        "--config", type=Path, default=Path("configs/appliance.yaml"), metavar="FILE",
        help="the config (default: %(default)s)",
    )  # fmt: skip
    if script:
        command.add_argument("--json", action="store_true", help="print JSON, for scripts")
    command.set_defaults(run=run)
    return command


def page(text: str) -> Path:
    """A file that can be written, as far as can be told before it is."""
    file = Path(text)
    try:
        if file.exists():
            file.open("ab").close()
        else:
            tempfile.TemporaryFile(dir=file.parent).close()
    except OSError as cause:
        raise argparse.ArgumentTypeError(f"{file} can't be written: {cause.strerror}") from None
    return file


def fingerprint(text: str) -> str:
    """The fingerprint of a key, as people write it down, or as the first line of key.pub has it."""
    text = text.strip().removeprefix("fingerprint").strip()
    if not re.fullmatch(r"[0-9a-f]{32}", text.replace(" ", "").replace(":", ""), re.IGNORECASE):
        raise argparse.ArgumentTypeError("a fingerprint is eight groups of four digits (0-9, a-f), in quotes")
    return text


def count(text: str) -> int:
    """A number of lines to show."""
    if not text.isdecimal() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError("give a whole number from 1 to 100000")
    return int(text)
