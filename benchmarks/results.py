"""Where figures are kept: for programs, as a table, and as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import setting


def keep(
    folder: Path, name: str, figures: Mapping[str, Any], table: str | None = None, drawing: str | None = None
) -> None:
    """Write `name`.json into `folder`, and .md and .svg where there is a table or a drawing.

    `figures["setting"]` is what `setting.describe` told. A figure that isn't there (NaN) is null.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(figures, indent=1).replace("NaN", "null"))
    if table is not None:
        (folder / f"{name}.md").write_text(f"{table}\n\n{setting.sentence(figures['setting'])}\n")
    if drawing is not None:
        (folder / f"{name}.svg").write_text(drawing)
