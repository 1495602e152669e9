"""Makes a bundle: everything is collected in FOLDER.part, which becomes FOLDER when its checksums are written."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from appliance import __version__
from appliance.bundle import locks, sbom, sums, wheels
from appliance.bundle.about import About
from appliance.config import Config
from appliance.errors import BundleFailed
from appliance.weights import manifest
from appliance.weights.adapters import adapters
from appliance.weights.card import Card, load_card, named
from appliance.weights.prepare import prepare

Say = Callable[[str], None]

CHECKOUT = Path(__file__).resolve().parents[2]
_WHEELS = "offline/wheels"
_PACKAGES = "offline/packages"
_ARRIVED = "offline/.arrived"


@dataclass(frozen=True, slots=True)
class Order:
    """What a bundle is to hold. Without `models`: those that the config names."""

    device: str
    models: tuple[str, ...] = ()
    without: tuple[locks.Left, ...] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """A bundle that is whole: its folder, its size, and the checksum of its SHA256SUMS."""

    folder: Path
    bytes: int
    sha256: str
    notes: tuple[str, ...]


def make(order: Order, config: Config, output: Path, say: Say) -> Made:
    """Collect a bundle into the folder `output`, which must not be there yet.

    A failed or killed run leaves `output`.part, from which the next run takes the packages that have arrived.
    Raises `BundleFailed`, and what preparing a model raises.
    """
    output = output.absolute()
    if output.exists():
        raise BundleFailed(f"{output} is there already. Remove it, or name another folder with --output.")
    source = _source()
    pip = CHECKOUT / ".venvs" / "uv"
    if not (pip / "bin" / "python").exists():
        raise BundleFailed(f"{pip} isn't there. Run `make gateway`, which sets it up.")
    part = output.with_name(f"{output.name}.part")
    try:
        (part / _WHEELS).mkdir(parents=True, exist_ok=True)
        with _alone(part):
            notes = _collect(order, config, source, pip, part, say)
            digest = sums.write(part, say)
            part.rename(output)
    except OSError as cause:
        raise BundleFailed(
            f"{cause.filename or part}: {cause.strerror or cause}. Mend that, then run the same command again."
        ) from cause
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    return Made(output, size, digest, (*source.notes, *notes))


def archive(bundle: Path, say: Say) -> Path:
    """Write the whole `bundle` into one file beside it, FOLDER.tar; it holds nobody's name and no path of here."""
    target = bundle.with_name(f"{bundle.name}.tar")
    part = target.with_name(f"{target.name}.part")
    say(f"writing {target.name}")
    try:
        with tarfile.open(part, "w") as tar:
            for file in sorted(file for file in bundle.rglob("*") if file.is_file()):
                tar.add(file, f"{bundle.name}/{file.relative_to(bundle)}", filter=_nobodys)
        part.rename(target)
    except OSError as cause:
        part.unlink(missing_ok=True)
        raise BundleFailed(f"{target}: {cause.strerror or cause}. The folder {bundle} is whole.") from cause
    return target


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.mode & 0o100 else 0o644
    return member


def _collect(order: Order, config: Config, source: _Source, pip: Path, part: Path, say: Say) -> list[str]:
    """Fill the folder `part`; returns what its administrator should know of it."""
    _clear(part)
    cards = _prepared(order, config, say)
    sets = locks.chosen(order.device, order.without)
    packages = _packages(sets, pip, part, say)
    native = _libnuma(part / _PACKAGES) if order.device == "cpu" else None
    say("copying the checkout")
    for name in source.files:
        _copy(CHECKOUT / name, part / name)
    for name, card in cards.items():
        say(f"copying the weights of {card.title}")
        _copy_model(config.models_folder / name, part / "models" / name, card)
    for name in _below(config.models_folder, "evals"):
        _copy(config.models_folder / name, part / "models" / name)
    told = About(
        version=source.version,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        device=order.device,
        python=wheels.PYTHON,
        machine=wheels.MACHINE,
        glibc=wheels.glibc(wheel.file.name for wheel in packages),
        sets=sets,
        models=tuple(cards),
    )
    told.write(part)
    bill = sbom.document(
        told,
        [*map(_billed, packages), *([native] if native else ())],
        [_billed_model(part / "models" / name, card) for name, card in cards.items()],
    )
    (part / sbom.NAME).write_text(json.dumps(bill, indent=1) + "\n")
    return [_NO_LIBNUMA] if order.device == "cpu" and native is None else []


def _clear(part: Path) -> None:
    """Remove what a failed run has left, but for packages."""
    for left in (*part.iterdir(), *(part / "offline").iterdir()):
        if left not in (part / "offline", part / _WHEELS, part / _ARRIVED):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def _prepared(order: Order, config: Config, say: Say) -> dict[str, Card]:
    """The cards of the models that are wanted, whose weights are then prepared and verified."""
    served = {each.card for each in config.settings.models.values() if each.kind == "card"}
    names = order.models or tuple(sorted(served))
    environment = config.path(config.settings.engines.preparation_environment)
    cards = {name: load_card(named(config.models_folder, name)) for name in names}
    for name in cards:
        say(f"model {name}")
        prepare(name, config.models_folder, environment, say)
    return cards


def _packages(sets: tuple[str, ...], pip: Path, part: Path, say: Say) -> tuple[wheels.Wheel, ...]:
    """Fetch the packages of all `sets`."""
    files = {name: CHECKOUT / locks.FOLDER / f"{name}.txt" for name in sets}
    pins = {name: locks.read(file) for name, file in files.items()}
    for name, file in files.items():
        say(f"packages: {name} ({len(pins[name])})")
        wheels.fetch(pip, file, part / _WHEELS, part / _ARRIVED, say)
    say("holding the packages against the locks")
    found = wheels.match(pins, part / _WHEELS)
    shutil.rmtree(part / _ARRIVED, ignore_errors=True)
    return found


def _copy_model(model: Path, target: Path, card: Card) -> None:
    """The card with what it names, golden sets, adapters and weights; a manifest after the files that it lists.

    That of the weights is the last, so that `make` sees it newer than its card. Raises `WeightsInvalid` for an adapter
    that isn't what was added.
    """
    names = ["card.yaml", *([card.calibration.file] if card.calibration else ()), *_below(model, "evals")]
    for adapter in adapters(model):
        names += _recorded(model, f"adapters/{adapter}")
    for name in (*names, *_recorded(model, "weights")):
        _copy(model / name, target / name)


def _recorded(model: Path, folder: str) -> list[str]:
    """The files of a folder that has a manifest, and that one last."""
    return [*(f"{folder}/{name}" for name in manifest.read(model / folder).files), f"{folder}/{manifest.NAME}"]


def _below(folder: Path, name: str) -> list[str]:
    """The files in a folder within `folder`, as paths relative to that; links and what is hidden stay behind."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in (folder / name).rglob("*")
        if path.is_file() and not path.is_symlink() and not path.name.startswith(".")
    )


_NO_LIBNUMA = (
    "Debian's package libnuma1 couldn't be fetched here (apt-get download libnuma1): the other machine has to have "
    "it, or its like, installed"
)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with this process however it ends."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BundleFailed(f"another `appliance bundle` is at work on {folder}; wait for it") from None
        yield
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class _Source:
    """The checkout's files, as paths relative to it, and the version that they are."""

    files: tuple[str, ...]
    version: str
    notes: tuple[str, ...]


def _source() -> _Source:
    """What git keeps of this checkout. Other files stay behind: among them could be a key."""
    files = [name for name in _git("ls-files", "-z").split("\0") if name and (CHECKOUT / name).exists()]
    if links := [name for name in files if (CHECKOUT / name).is_symlink()]:
        raise BundleFailed(f"{links[0]} is a link, and a bundle can't hold one. Put a file in its place.")
    version = f"{__version__}+g{_git('rev-parse', '--short=12', 'HEAD').strip()}"
    changed = _git("status", "--porcelain", "--untracked-files=no").splitlines()
    left = [name for name in _git("ls-files", "-z", "--others", "--exclude-standard").split("\0") if name]
    notes = []
    if changed:
        version += ".changed"
        notes.append(f"the checkout differs from its last commit in {len(changed)} files; they are bundled as they are")
    if left:
        notes.append(f"left out, since git doesn't keep them: {', '.join(left[:3])}{', ...' if len(left) > 3 else ''}")
    return _Source(tuple(files), version, tuple(notes))


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(CHECKOUT), *arguments],  # noqa: S607
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except FileNotFoundError:
        raise BundleFailed("git isn't installed (Debian: apt install git)") from None
    except subprocess.CalledProcessError as cause:
        raise BundleFailed(
            f"a bundle is made of a git checkout, and {CHECKOUT} can't be read as one: {cause.stderr.strip()}"
        ) from cause
    return done.stdout


def _copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)
    target.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)


def _libnuma(into: Path) -> sbom.Package | None:
    """Debian's package of libnuma, which apt has checked; None where there is no apt, or it has none."""
    into.mkdir()
    with contextlib.suppress(FileNotFoundError):
        subprocess.run(["apt-get", "-qq", "download", "libnuma1"], cwd=into, capture_output=True, check=False)  # noqa: S607
    for file in into.glob("libnuma1_*.deb"):
        name, version, machine = file.stem.split("_")
        return sbom.Package(name, version, manifest.sha256(file), kind="deb/debian", qualifiers=f"arch={machine}")
    into.rmdir()
    return None


def _billed(wheel: wheels.Wheel) -> sbom.Package:
    return sbom.Package(
        wheel.pin.name, wheel.pin.version, wheel.sha256, sets=wheel.sets, licence=wheels.licence(wheel.file)
    )


def _billed_model(model: Path, card: Card) -> sbom.Weights:
    weights = manifest.read(model / "weights").files
    files = {name: file.sha256 for name, file in weights.items()}
    for adapter in adapters(model):
        folder = f"adapters/{adapter}"
        files |= {f"{folder}/{name}": file.sha256 for name, file in manifest.read(model / folder).files.items()}
    return sbom.Weights(
        model.name,
        card.title,
        card.description,
        card.licence,
        tuple((name, files[name]) for name in sorted(files)),
    )
