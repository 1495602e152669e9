"""What a model's file really holds, whatever its name says. Nothing is loaded, and no more is read than it takes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

MIB = 1 << 20
MAX_HEADER_BYTES = 16 * MIB
"""Of safetensors. The format admits 100 MB; the largest in use have a few."""
MAX_SETTINGS_BYTES = 8 * MIB
MAX_TABLE_BYTES = 128 * MIB
MAX_TEMPLATE_BYTES = MIB
MAX_DIMENSIONS = 64

_BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32,
    "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
"""The number formats of safetensors 0.8."""

# Only to explain what was refused already: the length of a right header may begin with any of these.
_SIGNATURES = (
    (rb"PK\x03\x04", "is a zip archive (torch.save writes such, with a pickle inside)"),
    (rb"\x80[\x02-\x05]", "is a pickle"),
    (rb"GGUF", "is a GGUF file"),
    (rb"\x7fELF", "is a program"),
    (rb"#!", "is a script"),
    (rb"\x89HDF", "is an HDF5 file"),
    (rb"\x1f\x8b", "is a gzip archive"),
)

REMOTE_CODE = frozenset({"auto_map", "auto_mapping", "custom_generate", "custom_pipelines", "trust_remote_code"})
"""Fields that name Python code for the loader to import."""
_NEVER_RUN = (
    "code that comes with a model is never run here: it could do all that an engine can, and loaders have run it "
    "unasked before (CVE-2025-66448, CVE-2026-22807)"
)
# vLLM renders templates in Jinja's sandbox, which is what holds; an honest template has no use for these.
_INTERNALS = re.compile(
    r"__(?:bases?|builtins|call|class|code|dict|func|getattribute|globals|import|init|loader|module|mro|new|"
    r"reduce|reduce_ex|self|spec|subclasses)__"
)
_TABLES = re.compile(r"tokenizer\.json|vocab\.json|tekken\.json|.*\.index\.json")


class _Unfit(ValueError):
    """The end of a sentence that begins with the file's name."""


def objection(path: Path, *, tables: bool = True) -> str | None:
    """Why `path` isn't let in, as the end of a sentence that begins with its name; None if nothing speaks against it.

    Without `tables`, JSON files that only list tokens or tensors aren't parsed: they can be large, name no code,
    and parsing stops all other threads of the process.
    """
    suffix = path.suffix.lower()
    if suffix == ".json" and _TABLES.fullmatch(path.name):
        check: _Check = _table if tables else _anything
    else:
        check = _CHECKS.get(suffix, _anything)
    with path.open("rb") as file:
        try:
            check(file, path)
        except _Unfit as found:
            file.seek(0)
            head = file.read(8)
            known = next((what for pattern, what in _SIGNATURES if re.match(pattern, head)), None)
            return f"{known}, whatever its name says" if known else str(found)
    return None


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The tensors of a .safetensors file that has passed `objection`, and their shapes; only its header is read."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: tuple(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"}


_Check = Callable[[BinaryIO, Path], None]


def _safetensors(file: BinaryIO, path: Path) -> None:
    size = path.stat().st_size
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= size - 8:
        raise _Unfit("isn't in the safetensors format: its header would be longer than the file")
    if length > MAX_HEADER_BYTES:
        raise _Unfit(f"has a header of {length} bytes; {MAX_HEADER_BYTES} are the most")
    raw = file.read(length)
    if not raw.startswith(b"{"):
        raise _Unfit("isn't in the safetensors format: its header doesn't begin with `{`")
    header = _json(raw, _without_doubles)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _Unfit("has `__metadata__` other than texts")
    # Tensors lie end to end and fill the file: what lies between or after them could be another file.
    end = 0
    for start, stop, name in sorted(_tensor(name, tensor) for name, tensor in header.items()):
        if start != end:
            raise _Unfit(f"has a hole or an overlap before tensor {name[:64]!r}")
        end = stop
    if end != size - 8 - length:
        raise _Unfit("has bytes after its last tensor, or too few: it was cut off or holds something else too")


def _tensor(name: str, tensor: Any) -> tuple[int, int, str]:
    match tensor:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [start, stop]} if (
            dtype in _BITS
            and len(shape) <= MAX_DIMENSIONS
            and all(type(number) is int and 0 <= number < 2**63 for number in (start, stop, *shape))
            and math.prod(shape) * _BITS[dtype] == (stop - start) * 8
        ):
            return start, stop, name
    raise _Unfit(f"describes tensor {name[:64]!r} by a number format, shape or place that can't be")


def _settings(file: BinaryIO, path: Path) -> None:
    found = _json(_read(file, MAX_SETTINGS_BYTES), _without_code)
    if path.name == "modules.json":
        for module in found if isinstance(found, list) else []:
            kind = module.get("type") if isinstance(module, dict) else None
            if not str(kind).startswith("sentence_transformers."):
                raise _Unfit(f"asks for a module of its own by `type: {str(kind)[:64]}`; {_NEVER_RUN}")


def _table(file: BinaryIO, _: Path) -> None:
    _json(_read(file, MAX_TABLE_BYTES), dict)


def _json(raw: bytes, from_pairs: Callable[[list[tuple[str, Any]]], dict[str, Any]]) -> Any:
    try:
        return json.loads(raw.decode(), object_pairs_hook=from_pairs)
    except _Unfit:
        raise
    except RecursionError:
        raise _Unfit("is nested too deeply") from None
    except ValueError as cause:
        raise _Unfit(f"isn't JSON ({cause})") from None


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):  # two readers could each see another one
        raise _Unfit("names a field twice")
    return found


def _without_code(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for key, value in pairs:
        # any word may be a key where tokens are counted; numbers ask for nothing
        if key in REMOTE_CODE and value and (value is True or isinstance(value, str | list | dict)):
            raise _Unfit(
                f"asks for the model's own code by `{key}`; {_NEVER_RUN}. If vLLM knows this kind of model by itself, "
                "delete the field in the source's file and correct its checksum; otherwise take another model"
            )
        if key in ("chat_template", "template") and isinstance(value, str):
            _no_internals(value)
    return _without_doubles(pairs)


def _template(file: BinaryIO, _: Path) -> None:
    try:
        _no_internals(_read(file, MAX_TEMPLATE_BYTES).decode())
    except UnicodeDecodeError:
        raise _Unfit("isn't text in UTF-8") from None


def _no_internals(template: str) -> None:
    if internal := _INTERNALS.search(template):
        raise _Unfit(f"holds a chat template that reaches for `{internal[0]}`, an inside of Python's; take a clean one")


def _tokenizer_model(file: BinaryIO, _: Path) -> None:
    """SentencePiece's protobuf begins with its first piece, tiktoken's text with a token in base64 and its rank."""
    raw = file.read(4096)
    if not raw.startswith(b"\n") and not re.match(rb"[A-Za-z0-9+/]+=* \d+\r?\n", raw):
        raise _Unfit("is neither a SentencePiece nor a tiktoken file")


def _text(file: BinaryIO, _: Path) -> None:
    if b"\0" in _read(file, MAX_TABLE_BYTES):
        raise _Unfit("isn't text")


def _anything(file: BinaryIO, _: Path) -> None:
    pass


def _read(file: BinaryIO, most: int) -> bytes:
    raw = file.read(most + 1)
    if len(raw) > most:
        raise _Unfit(f"is over {most // MIB} MiB, more than such a file can need")
    return raw


_CHECKS: dict[str, _Check] = {
    ".safetensors": _safetensors,
    ".json": _settings,
    ".jinja": _template,
    ".model": _tokenizer_model,
    ".txt": _text,
}
