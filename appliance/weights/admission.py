"""Which files may become part of a model's weights: decided by name first, then by what they hold."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from appliance.errors import PreparationFailed
from appliance.weights.content import objection

ADMITTED = frozenset({".safetensors", ".json", ".txt", ".jinja", ".model"})
CODE = frozenset(
    {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz", ".py", ".pyc", ".so"}
)
"""What loading would execute: pickles, Python and native code."""


_TOKENIZERS = frozenset({"tokenizer.json", "tokenizer.model", "spiece.model", "tekken.json", "vocab.json", "vocab.txt"})


def is_tokenizer(name: str) -> bool:
    """Whether a file of that name makes a tokenizer."""
    return name in _TOKENIZERS


def belongs(name: str) -> bool:
    """Whether a file of that name, relative with `/`, may be part of a model."""
    path = PurePosixPath(name)
    suffix = path.suffix.lower()
    hidden = any(part.startswith(".") for part in path.parts)
    named = suffix in ADMITTED or (path.name.startswith(("LICENSE", "NOTICE")) and suffix not in CODE)
    return named and not hidden


def admits(name: str) -> bool:
    """Whether the file `name` belongs to a model; README and the like stay behind.

    Raises `PreparationFailed` for a file that could bring code.
    """
    if PurePosixPath(name).suffix.lower() in CODE:
        raise PreparationFailed(
            f"{name} can run code when it is loaded (pickle, Python or native) and isn't let in. Take the "
            "checkpoint's safetensors version and remove this file from the source."
        )
    return belongs(name)


def admitted(checkpoint: Path) -> list[str]:
    """The files below `checkpoint` that belong to the model, as relative paths with `/`, sorted.

    Raises `PreparationFailed` for files that could bring code, that aren't what their name says or that are links
    out of the folder, and if config.json, the safetensors or the tokenizer are missing.
    """
    inside = checkpoint.resolve()
    names = []
    for path in sorted(checkpoint.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise PreparationFailed(
                f"{path} is a link that leads out of its folder. Bring the file itself: `cp -rL` copies a folder "
                "with what its links lead to."
            )
        name = path.relative_to(checkpoint).as_posix()
        if path.is_file() and admits(name):
            names.append(name)
    if "config.json" not in names:
        raise PreparationFailed(f"{checkpoint} holds no config.json; is it the folder of a checkpoint?")
    if not any(name.endswith(".safetensors") for name in names):
        raise PreparationFailed(f"{checkpoint} holds no .safetensors file; take the checkpoint's safetensors version.")
    if not any(map(is_tokenizer, names)):
        raise PreparationFailed(f"{checkpoint} holds no tokenizer (tokenizer.json or tokenizer.model); bring it, too.")
    look_into(checkpoint, names)
    return names


def look_into(checkpoint: Path, names: Iterable[str]) -> None:
    """Raises `PreparationFailed` for the first of these files that isn't what its name says, or asks for code."""
    for name in names:
        if found := objection(checkpoint / name):
            raise PreparationFailed(f"{checkpoint / name} {found}. It isn't let in; bring the right file.")
