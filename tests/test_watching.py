"""A file that is watched is read when it has changed and is whole, once for each change."""

from __future__ import annotations

import os
from pathlib import Path

from appliance.watching import Stillness, look


def moments(file: Path, stillness: Stillness, since: float, seconds: float) -> list[float]:
    """When it is time to read the file, looked at each quarter of a second and not changed meanwhile."""
    steps = (since + step / 4 for step in range(int(seconds * 4)))
    return [now for now in steps if stillness.comes(look(file), now)]


def test_it_is_time_once_a_second_after_each_change(tmp_path: Path) -> None:
    file, stillness = tmp_path / "a.yaml", Stillness()
    file.write_text("one")
    assert moments(file, stillness, 0, 10) == [1.0]
    file.write_text("three")
    assert moments(file, stillness, 10, 10) == [11.0]
    os.utime(file, ns=(0, 0))
    assert moments(file, stillness, 20, 10) == [21.0]


def test_what_was_read_for_another_reason_is_not_read_again_before_it_changes(tmp_path: Path) -> None:
    file, stillness = tmp_path / "a.yaml", Stillness()
    file.write_text("one")
    assert moments(file, stillness, 0, 0.5) == []
    stillness.told(look(file))
    assert moments(file, stillness, 0.5, 10) == []
    os.utime(file, ns=(0, 0))
    assert moments(file, stillness, 20, 10) == [21.0]


def test_it_is_not_time_while_an_editor_writes_on(tmp_path: Path) -> None:
    file, stillness = tmp_path / "a.yaml", Stillness()
    for step in range(40):
        with file.open("a") as opened:
            opened.write("x")
        assert moments(file, stillness, step * 0.75, 0.75) == []
    assert moments(file, stillness, 30, 5) == [30.25], "a second after the last step was seen"


def test_a_file_that_is_gone_for_a_while_or_replaced_by_another_is_waited_for(tmp_path: Path) -> None:
    file, stillness = tmp_path / "a.yaml", Stillness()
    file.write_text("one")
    assert moments(file, stillness, 0, 5) == [1.0]
    file.unlink()
    assert moments(file, stillness, 5, 5) == []
    draft = tmp_path / "a.yaml~"
    draft.write_text("two")
    draft.replace(file)
    assert moments(file, stillness, 10, 5) == [11.0]


def test_a_link_that_leads_elsewhere_is_a_change(tmp_path: Path) -> None:
    """As Kubernetes does it: the file is a link to `..data/a.yaml`, and `..data` a link that is swapped."""
    for name in ("..1", "..2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.yaml").write_text("same")
        os.utime(tmp_path / name / "a.yaml", ns=(0, 0))
    (tmp_path / "..data").symlink_to("..1")
    file, stillness = tmp_path / "a.yaml", Stillness()
    file.symlink_to("..data/a.yaml")
    assert moments(file, stillness, 0, 5) == [1.0]
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    assert moments(file, stillness, 5, 5) == [6.0]
