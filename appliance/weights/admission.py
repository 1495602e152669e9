"""Which files may become part of a model's weights. Decided by name, before anything is opened."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from appliance.errors import PreparationFailed

ADMITTED = frozenset({".safetensors", ".json", ".txt", ".jinja", ".model"})
CODE = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".py"})
"""What loading would execute: pickles and Python."""


def admits(name: str) -> bool:
    """Whether the file `name` belongs to a model; README and the like stay behind.

    Raises `PreparationFailed` for a file that could bring code.
    """
    path = PurePosixPath(name)
    if path.suffix.lower() in CODE:
        raise PreparationFailed(
            f"{name} can run code when it is loaded (pickle or Python) and isn't let in. Take the checkpoint's "
            "safetensors version and remove this file from the source."
        )
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and (path.suffix.lower() in ADMITTED or path.name.startswith(("LICENSE", "NOTICE")))


def admitted(checkpoint: Path) -> list[str]:
    """The files below `checkpoint` that belong to the model, as relative paths with `/`, sorted.

    Raises `PreparationFailed` for files that could bring code, and if config.json or the safetensors are missing.
    """
    files = (path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file())
    names = sorted(name for name in files if admits(name))
    if "config.json" not in names:
        raise PreparationFailed(f"{checkpoint} holds no config.json; is it the folder of a checkpoint?")
    if not any(name.endswith(".safetensors") for name in names):
        raise PreparationFailed(f"{checkpoint} holds no .safetensors file; take the checkpoint's safetensors version.")
    return names
