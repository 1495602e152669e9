"""Brings a model's weights into models/<name>/weights: found, checked, converted, recorded, put in place."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from appliance.errors import PreparationFailed, WeightsInvalid
from appliance.telemetry import SILENT
from appliance.weights import manifest
from appliance.weights.admission import admitted
from appliance.weights.card import CONVERTED, Card, Package, load_card, named
from appliance.weights.mirror import download

Progress = Callable[[str], None]

STAGING = ".preparing"  # beside `weights`, so that a rename puts the finished folder in place
DOWNLOAD = ".download"
CONVERTER = Path(__file__).with_name("convert.py")

# What `quantization_config` of config.json may say, for each quantization of a card: (quant_method, format).
_METHODS: Mapping[str, tuple[tuple[str, str | None], ...]] = {
    "none": (),
    "bitsandbytes-4bit": (("bitsandbytes", None),),
    "int8": (("compressed-tensors", "int-quantized"),),
    "int8-weight-only": (),
    "w4a16": (("compressed-tensors", "pack-quantized"),),
    "awq": (("awq", None),),
    "gptq": (("gptq", None),),
    "fp8": (("fp8", None), ("compressed-tensors", "float-quantized")),
}
# What may start from unquantized weights.
_PLAIN = frozenset({"none", "bitsandbytes-4bit", "int8-weight-only"}) | CONVERTED


def prepare(name: str, models: Path, environment: Path, progress: Progress) -> Path:
    """Make `models`/`name`/weights what its card says, and return that folder.

    `environment` is the virtual environment of configs/locks/prepare.txt. Weights that fit the card and their
    checksums are left alone. A failed or killed preparation leaves the former weights as they were; only what
    was downloaded from a mirror is kept, for the next try. A second preparation of the same model waits.

    Raises `CardInvalid`, and `PreparationFailed` saying what to do.
    """
    folder = named(models.absolute(), name)  # the converter runs in another working directory
    environment = environment.absolute()
    card = load_card(folder)
    weights = folder / "weights"
    with _alone(folder, progress):
        _clear(folder)
        if _ready(weights, card, progress):
            return weights
        staging = folder / STAGING
        try:
            staging.mkdir()
            _build(card, folder, environment, progress)
            if weights.exists():
                weights.rename(staging / "replaced")
            (staging / "weights").rename(weights)
            shutil.rmtree(folder / DOWNLOAD, ignore_errors=True)
        except OSError as cause:
            raise PreparationFailed(
                f"{cause.filename or folder}: {cause.strerror or cause}. "
                f"Mend that, then run `appliance models prepare {name}` again."
            ) from cause
        finally:
            _clear(folder)
    return weights


@contextlib.contextmanager
def _alone(folder: Path, progress: Progress) -> Iterator[None]:
    """Hold the folder's lock, which ends with this process however it ends."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another preparation of this model")
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _clear(folder: Path) -> None:
    """Remove what an unfinished preparation left, putting back weights that it had moved aside."""
    staging, weights = folder / STAGING, folder / "weights"
    if (staging / "replaced").is_dir() and not weights.exists():
        (staging / "replaced").rename(weights)
    shutil.rmtree(staging, ignore_errors=True)


def _ready(weights: Path, card: Card, progress: Progress) -> bool:
    if not weights.exists():
        return False
    try:
        if manifest.read(weights).fits(card):
            manifest.verify(weights)
            return True
        progress("the card has changed, preparing again")
    except WeightsInvalid as damage:
        progress(f"preparing again: {damage}")
    return False


def _build(card: Card, folder: Path, environment: Path, progress: Progress) -> None:
    """Fill the staging folder's `weights`."""
    staging = folder / STAGING
    weights = staging / "weights"
    weights.mkdir()
    source = _find(card, folder, environment, progress)
    root = source.parent if source.is_file() else source
    for name, digest in card.checksums.items():
        _check(root / name, digest)
    # what isn't let in isn't handed to the converter either
    names = [] if source.suffix == ".gguf" else admitted(source)
    tools: Mapping[str, str] = {}
    if source.suffix == ".gguf" or _needs_conversion(source, card):
        converted = staging / "converted"
        converted.mkdir()
        tools = _convert(source, converted, card, environment, progress)
        _take(converted, admitted(converted), weights, linked=True)
    else:
        progress(f"taking over {root.name}")
        # a package's files are shared with the installer's cache, so these are copied
        _take(root, names, weights, linked=card.source.package is None)
    progress("recording checksums")
    manifest.write(weights, card, tools)


def _find(card: Card, folder: Path, environment: Path, progress: Progress) -> Path:
    """The source: a .gguf file or the folder of a checkpoint."""
    if card.source.package is not None:
        file = _in_package(card.source.package, environment)
        progress(f"checking {file.name}")
        _check(file, card.source.package.sha256)
        return file if file.suffix == ".gguf" else file.parent
    if card.source.mirror is not None:
        download(card.source.mirror, folder / DOWNLOAD, progress)
        return folder / DOWNLOAD
    source = folder / Path(card.source.folder or "").expanduser()
    if not source.is_dir():
        raise PreparationFailed(
            f"{source} isn't there. Put the checkpoint of {card.title} into that folder (config.json, "
            f"tokenizer and *.safetensors), or name its place as `source.folder` in {folder / 'card.yaml'}."
        )
    return source


def _in_package(package: Package, environment: Path) -> Path:
    distribution, version = package.requirement.split("==")
    record = f"{re.sub(r'[-_.]+', '_', distribution).lower()}-{version}.dist-info"
    for site in environment.glob("lib/python3*/site-packages"):
        if (site / record).is_dir() and (site / package.file).is_file():
            return site / package.file
    raise PreparationFailed(
        f"{package.requirement} with {package.file} isn't installed in {environment}. Name it in "
        f"configs/locks/prepare.in, then run `make lock` and `make {environment.name}`."
    )


def _check(file: Path, digest: str) -> None:
    if not file.is_file():
        raise PreparationFailed(f"{file} is missing, but the card has a checksum for it. Bring the file.")
    if manifest.sha256(file) != digest:
        raise PreparationFailed(
            f"{file} isn't the file that the card expects: its checksum differs. Bring the file again; if it "
            "was changed on purpose, put the new checksum into the card."
        )


def _needs_conversion(checkpoint: Path, card: Card) -> bool:
    """Whether the checkpoint is still to be quantized; raises `PreparationFailed` if it never can be."""
    try:
        found = json.loads((checkpoint / "config.json").read_bytes()).get("quantization_config")
        method = (found["quant_method"], found.get("format")) if found else None
    except FileNotFoundError:
        raise PreparationFailed(f"{checkpoint} holds no config.json; is it the folder of a checkpoint?") from None
    except (ValueError, AttributeError, KeyError, TypeError) as cause:
        raise PreparationFailed(f"{checkpoint / 'config.json'} can't be understood; bring the file again.") from cause
    if method is None and card.quantization in _PLAIN:
        return card.quantization in CONVERTED
    if method is not None and _fits(method, card.quantization):
        return False
    if method is None:
        is_now, fitting = "isn't quantized", ["none"]
    else:
        is_now = f"is quantized with {method[0]}" + (f" ({method[1]})" if method[1] else "")
        fitting = [quantization for quantization in _METHODS if _fits(method, quantization)]
    change = f"Set `quantization: {fitting[0]}` in the card, or bring" if fitting else "Bring"
    raise PreparationFailed(
        f"{checkpoint} {is_now}, but the card says `quantization: {card.quantization}`. "
        f"{change} a checkpoint that fits."
    )


def _fits(method: tuple[str, str | None], quantization: str) -> bool:
    return any(method[0] == name and form in (None, method[1]) for name, form in _METHODS[quantization])


def _convert(source: Path, out: Path, card: Card, environment: Path, progress: Progress) -> Mapping[str, str]:
    """Run convert.py; returns the versions of the tools it used."""
    python = environment / "bin" / "python"
    if not python.is_file():
        raise PreparationFailed(f"{environment} isn't there. Run `make {environment.name}`, which sets it up.")
    quantization = card.quantization if card.quantization in CONVERTED else "none"
    tools: Mapping[str, str] | None = None
    log = out.parent / "convert.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [str(python), str(CONVERTER), str(source), str(out), quantization],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=out.parent,
            env={
                "PATH": os.defpath,
                "HOME": str(out.parent),
                "TMPDIR": str(out.parent),
                **SILENT,
                "TOKENIZERS_PARALLELISM": "false",
            },
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                told = json.loads(line)
                tools = told.get("tools", tools)
                if "progress" in told:
                    progress(told["progress"])
        except BaseException:
            process.kill()
            raise
    if process.returncode == 0 and tools is not None:
        return tools
    if process.returncode == -9:
        raise PreparationFailed(
            "The conversion was killed, most likely for want of memory: it needs about three times the size "
            "of the source. Free memory, then try again."
        )
    last = log.read_text(errors="replace").strip().rpartition("\n")[2] or "it said nothing"
    raise PreparationFailed(f"The conversion ended with status {process.returncode}: {last[:500]}")


def _take(checkpoint: Path, names: list[str], weights: Path, *, linked: bool) -> None:
    """Bring the files `names` of `checkpoint` into `weights`, as hard links where that is possible."""
    for name in names:
        target = weights / name
        target.parent.mkdir(parents=True, exist_ok=True)
        original = (checkpoint / name).resolve()
        if linked:
            with contextlib.suppress(OSError):  # another file system, or somebody else's file
                target.hardlink_to(original)
                continue
        shutil.copyfile(original, target)
