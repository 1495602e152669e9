"""The site's lists on disk: encrypted, private, replaced as a whole, and never mistaken for one another."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from appliance.errors import ListsFailed
from appliance.privacy.kinds import Kind
from appliance.privacy.site.entry import LISTS, SiteEntry
from appliance.privacy.site.lists import KEY, Lists

ANNA = SiteEntry("Anna Müller", Kind.CLIENT, ("Müller-Reisen", "AMR"))
OTTO = SiteEntry("Otto Lange", Kind.EMPLOYEE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "lists"


def keep(folder: Path, *entries: SiteEntry) -> Lists:
    lists = Lists(folder)
    for entry in entries:
        lists.change(entry.kind, lambda known, new=entry: [*known, new])  # type: ignore[misc]
    return lists


def test_what_is_kept_is_read_again(folder: Path) -> None:
    keep(folder, ANNA, OTTO)
    assert Lists(folder).every() == [ANNA, OTTO]
    assert Lists(folder).read(Kind.PROJECT) == []


def test_without_a_folder_there_is_nothing_and_nothing_is_made(folder: Path) -> None:
    assert Lists(folder).every() == []
    assert not folder.exists()


def test_no_name_stands_on_disk_and_nobody_else_may_read_there(folder: Path) -> None:
    keep(folder, ANNA, OTTO)
    assert sorted(file.name for file in folder.iterdir()) == ["client.list", "employee.list", KEY]
    assert folder.stat().st_mode & 0o777 == 0o700
    for file in folder.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
        for word in ("Anna", "Müller", "Lange", "Reisen"):
            assert word.encode() not in file.read_bytes()


def test_the_same_list_is_never_written_in_the_same_bytes(folder: Path) -> None:
    lists = keep(folder, ANNA)
    before = (folder / "client.list").read_bytes()
    lists.change(Kind.CLIENT, list)
    assert (folder / "client.list").read_bytes() != before


@pytest.mark.parametrize("at", [0, 10, 25, 40, -1])
def test_a_byte_that_was_changed_is_seen(folder: Path, at: int) -> None:
    lists = keep(folder, ANNA)
    file = folder / "client.list"
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)
    with pytest.raises(ListsFailed, match=r"damaged.*restore both from a backup, or remove the list and import it"):
        lists.every()


@pytest.mark.parametrize(
    "content", [b"", b"appliance site list 1\n", b"appliance site list 2\n" + bytes(99), bytes(200)]
)
def test_what_is_no_list_is_refused(folder: Path, content: bytes) -> None:
    lists = keep(folder, ANNA)
    (folder / "client.list").write_bytes(content)
    with pytest.raises(ListsFailed):
        lists.every()


def test_one_list_can_not_stand_in_for_another(folder: Path) -> None:
    lists = keep(folder, ANNA)
    (folder / "client.list").rename(folder / "employee.list")
    with pytest.raises(ListsFailed, match="another list's"):
        lists.every()


def test_without_its_key_a_list_is_neither_read_nor_replaced(folder: Path) -> None:
    lists = keep(folder, ANNA)
    (folder / KEY).rename(folder / "elsewhere")
    before = (folder / "client.list").read_bytes()
    for act in (lists.every, lambda: keep(folder, ANNA)):
        with pytest.raises(ListsFailed, match=r"restore that file from a backup, or remove the list and import it"):
            act()
    assert (folder / "client.list").read_bytes() == before
    (folder / KEY).write_bytes(bytes(31))
    with pytest.raises(ListsFailed, match="is no key"):
        lists.every()
    (folder / KEY).write_bytes(bytes(32))
    with pytest.raises(ListsFailed, match="not its key"):
        lists.every()


@pytest.mark.parametrize("name", ["client.list", KEY])
def test_a_link_in_the_place_of_a_file_is_not_followed(folder: Path, tmp_path: Path, name: str) -> None:
    lists = keep(folder, ANNA)
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ListsFailed, match="can't be read"):
        lists.every()


def test_a_pipe_in_the_place_of_a_list_holds_nobody_up(folder: Path) -> None:
    lists = keep(folder, ANNA)
    (folder / "client.list").unlink()
    os.mkfifo(folder / "client.list")
    with pytest.raises(ListsFailed):
        lists.every()


def test_what_fails_leaves_the_list_as_it_was(folder: Path) -> None:
    lists = keep(folder, ANNA)

    def fail(_: list[SiteEntry]) -> list[SiteEntry]:
        raise KeyError

    with pytest.raises(KeyError):
        lists.change(Kind.CLIENT, fail)
    assert lists.every() == [ANNA]


def test_two_changes_at_a_time_lose_nothing(folder: Path) -> None:
    entries = [SiteEntry(f"Client {number}", Kind.CLIENT) for number in range(20)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda entry: keep(folder, entry), entries))
    assert set(Lists(folder).every()) == set(entries)


def test_names_are_in_no_repr(folder: Path) -> None:
    assert "Anna" not in repr(ANNA)
    assert "Reisen" not in repr(ANNA)
    assert {str(kind) for kind in LISTS} == {"client", "employee", "project", "organisation"}
