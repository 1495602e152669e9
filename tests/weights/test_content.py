"""Files by what they hold. The checks are ours; the safetensors library that engines use is the judge beside them."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.weights import content
from appliance.weights.content import objection
from tests.fakes.house import safetensors
from tests.weights.conftest import ROOT

ENGINE = ROOT / ".venvs" / "engine" / "bin" / "python"


class Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.mark,)


def zipped(data: bytes) -> bytes:
    """What torch.save writes: a zip archive with the pickle as data.pkl."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", data)
    return archive.getvalue()


def tarred(data: bytes) -> bytes:
    """What torch.save wrote long ago."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as file:
        file.addfile(tarfile.TarInfo("pickle"), io.BytesIO(data))
    return archive.getvalue()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer.model"])
def test_a_pickle_under_another_name_is_found_and_not_run(tmp_path: Path, name: str, protocol: int) -> None:
    mark, file = tmp_path / "ran", tmp_path / name
    file.write_bytes(pickle.dumps(Payload(mark), protocol))
    said = objection(file)
    assert said
    assert protocol < 2 or "is a pickle" in said
    assert not mark.exists()
    pickle.loads(file.read_bytes())  # noqa: S301 - the control: it does run when it is loaded
    assert mark.exists()


@pytest.mark.parametrize(
    ("holds", "said"),
    [
        (zipped(pickle.dumps(1)), "is a zip archive (torch.save"),
        (tarred(pickle.dumps(1)), "isn't in the safetensors format"),
        (b"GGUF" + bytes(100), "is a GGUF file"),
        (b"\x7fELF" + bytes(100), "is a program"),
        (b"#!/bin/sh\nid\n", "is a script"),
        (b"", "isn't in the safetensors format"),
    ],
)
def test_other_files_named_safetensors_are_called_what_they_are(tmp_path: Path, holds: bytes, said: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(holds)
    assert said in (objection(tmp_path / "model.safetensors") or "")


def tensor(start: int, stop: int, dtype: str = "U8", shape: list[Any] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [stop - start] if shape is None else shape, "data_offsets": [start, stop]}


def framed(header: dict[str, Any] | bytes, data: bytes = b"1234") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


RIGHT: list[bytes] = [
    safetensors(b"abc"),
    framed({"w": tensor(0, 4), "__metadata__": {"format": "pt"}}),
    framed({"b": tensor(2, 4, "BF16", [1]), "a": tensor(0, 2, "F16", [1])}),
    framed({"w": tensor(0, 4, "F4", [2, 4])}),
    framed({"w": tensor(0, 3, "F6_E2M3", [4])}, b"123"),
    framed({"empty": tensor(0, 0, shape=[3, 0]), "scalar": tensor(0, 4, "F32", [])}),
    framed(b'{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}     '),
]
WRONG: list[tuple[bytes, str]] = [
    (framed({"w": tensor(0, 4)}, b"12345"), "bytes after its last tensor"),
    (framed({"w": tensor(0, 4)}, b"123"), "bytes after its last tensor, or too few"),
    (framed({"w": tensor(1, 4)}), "hole or an overlap before tensor 'w'"),
    (framed({"v": tensor(0, 3), "w": tensor(2, 4)}), "hole or an overlap before tensor 'w'"),
    (framed({"w": tensor(0, 4, "Q8")}), "number format, shape or place"),
    (framed({"w": tensor(0, 4, "F32", [2])}), "number format, shape or place"),
    (framed({"w": tensor(0, 4, shape=[2.0, 2])}), "number format, shape or place"),
    (framed({"w": tensor(0, 4, shape=[-4])}), "number format, shape or place"),
    (framed({"w": {"dtype": "U8", "shape": [4]}}), "number format, shape or place"),
    (framed({"w": [1]}), "number format, shape or place"),
    (framed({"w": tensor(0, 4), "__metadata__": {"a": 1}}), "`__metadata__` other than texts"),
    (framed(b"[1]"), "doesn't begin with `{`"),
    (framed(b'{"w":'), "isn't JSON"),
    (framed(b'{"\xff":1}'), "isn't JSON"),
    (b"\x10\0\0\0\0\0\0\0{}", "longer than the file"),
]


@pytest.mark.parametrize("holds", RIGHT)
def test_right_safetensors_are_let_in(tmp_path: Path, holds: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(holds)
    assert objection(tmp_path / "a.safetensors") is None


@pytest.mark.parametrize(("holds", "said"), WRONG)
def test_wrong_safetensors_are_not(tmp_path: Path, holds: bytes, said: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(holds)
    assert said in (objection(tmp_path / "a.safetensors") or "")


def test_the_library_that_loads_them_agrees(tmp_path: Path) -> None:
    """What it loads and we refuse costs an administrator a model; what we let in and it refuses, a start."""
    for number, holds in enumerate([*RIGHT, *(holds for holds, _ in WRONG)]):
        (tmp_path / f"{number:02}.safetensors").write_bytes(holds)
    program = (
        "import pathlib, sys; from safetensors import safe_open, SafetensorError\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try: safe_open(path, 'np').__enter__(); print('right')\n"
        "    except SafetensorError: print('wrong')\n"
    )
    judged = subprocess.run([ENGINE, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert judged.stdout.split() == ["right"] * len(RIGHT) + ["wrong"] * len(WRONG)


def test_we_are_stricter_than_the_library_where_the_format_is(tmp_path: Path) -> None:
    once = json.dumps({"w": tensor(0, 4)})[1:-1]
    (tmp_path / "twice.safetensors").write_bytes(framed(f"{{{once},{once}}}".encode()))
    (tmp_path / "space.safetensors").write_bytes(framed(f" {{{once}}}".encode()))
    assert "names a field twice" in (objection(tmp_path / "twice.safetensors") or "")
    assert "doesn't begin with `{`" in (objection(tmp_path / "space.safetensors") or "")


def test_a_header_over_the_bound_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.safetensors").open("wb") as file:
        file.write((content.MAX_HEADER_BYTES + 1).to_bytes(8, "little"))
        file.truncate(content.MAX_HEADER_BYTES + 100)
    assert "header of 16777217 bytes" in (objection(tmp_path / "a.safetensors") or "")


@pytest.mark.parametrize(
    ("name", "holds", "said"),
    [
        ("config.json", {"auto_map": {"AutoModel": "modeling.Evil"}}, "`auto_map`"),
        ("config.json", {"text_config": {"auto_map": {"AutoConfig": "far/away--conf.Evil"}}}, "`auto_map`"),
        ("tokenizer_config.json", {"auto_map": ["tokenization.Evil", None]}, "`auto_map`"),
        ("preprocessor_config.json", {"auto_map": {"AutoProcessor": "processing.Evil"}}, "`auto_map`"),
        ("config.json", {"trust_remote_code": True}, "`trust_remote_code`"),
        ("config.json", {"custom_pipelines": {"x": {"impl": "pipe.Evil"}}}, "`custom_pipelines`"),
        ("adapter_config.json", {"auto_mapping": {"parent_library": "evil"}}, "`auto_mapping`"),
        ("modules.json", [{"type": "evil.Module", "path": ""}], "`type: evil.Module`"),
    ],
)
def test_a_request_for_the_models_own_code_is_named(tmp_path: Path, name: str, holds: Any, said: str) -> None:
    (tmp_path / name).write_text(json.dumps(holds))
    found = objection(tmp_path / name) or ""
    assert said in found
    assert "is never run here" in found


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("config.json", {"auto_map": None, "trust_remote_code": False}),
        ("added_tokens.json", {"auto_map": 12, "trust_remote_code": 13}),
        ("vocab.json", {"auto_map": 12}),
        ("modules.json", [{"type": "sentence_transformers.models.Pooling"}]),
        ("processor_config.json", {"time_step_limit": [0.0, float("inf")]}),
        ("tokenizer_config.json", {"chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"}),
    ],
)
def test_what_only_looks_like_it_is_let_in(tmp_path: Path, name: str, holds: Any) -> None:
    (tmp_path / name).write_text(json.dumps(holds))
    assert objection(tmp_path / name) is None


TRICK = "{{ ''.__class__.__mro__[1].__subclasses__() }}"


@pytest.mark.parametrize(
    ("name", "holds", "said"),
    [
        ("chat_template.jinja", TRICK, "reaches for `__class__`"),
        ("tokenizer_config.json", json.dumps({"chat_template": TRICK}), "reaches for `__class__`"),
        ("tokenizer_config.json", json.dumps({"chat_template": [{"name": "a", "template": TRICK}]}), "`__class__`"),
        ("chat_template.jinja", "a" * (content.MAX_TEMPLATE_BYTES + 1), "is over 1 MiB"),
        ("config.json", '{"a": 1, "a": 2}', "names a field twice"),
        ("config.json", "[" * 100_000, "nested too deeply"),
        ("config.json", "{", "isn't JSON"),
        ("tokenizer.json", "{", "isn't JSON"),
        ("config.json", " " * (content.MAX_SETTINGS_BYTES + 1), "is over 8 MiB"),
        ("vocab.txt", "a\0b", "isn't text"),
        ("tokenizer.model", "cos\nsystem\n(S'id'\ntR.", "neither a SentencePiece nor a tiktoken"),
    ],
)
def test_other_bad_files_are_named(tmp_path: Path, name: str, holds: str, said: str) -> None:
    (tmp_path / name).write_text(holds)
    assert said in (objection(tmp_path / name) or "")


@pytest.mark.parametrize("holds", [b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02", b"IQ== 0\nIg== 1\n", b"AAAA 3\n"])
def test_both_kinds_of_tokenizer_model_are_let_in(tmp_path: Path, holds: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(holds)
    assert objection(tmp_path / "tokenizer.model") is None


def test_every_file_of_the_prepared_models_is_let_in() -> None:
    files = [file for file in ROOT.glob("models/*/weights/**/*") if file.is_file()]
    assert len(files) > 10
    assert {file: objection(file) for file in files} == dict.fromkeys(files)
