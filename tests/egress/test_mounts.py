"""Which mounts a process can reach, and which of them no seal makes."""

from __future__ import annotations

import pytest

from appliance.egress.mounts import Mounted, names, parse, reachable, strange

HOST = """\
1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
2 1 0:5 / /proc rw - proc proc rw
3 1 0:20 / /run rw shared:2 - tmpfs tmpfs rw
4 3 0:21 / /run/user rw - tmpfs tmpfs rw
5 1 0:30 / /srv/models rw - nfs4 nas:/models rw,vers=4.2
6 1 8:2 /@data /srv/my\\040data rw - btrfs /dev/sdb1 rw
"""


def test_mountinfo_is_read() -> None:
    mounts = parse(HOST)
    assert mounts[5] == Mounted(6, 1, "8:2", "/@data", "/srv/my data", "btrfs", writable=True)
    assert [mount.writable for mount in parse(HOST.replace("rw,vers", "ro,vers"))] == [*[True] * 4, False, True]


def test_what_is_mounted_over_is_out_of_reach() -> None:
    over = parse(HOST + "7 3 0:99 / /run ro - tmpfs tmpfs rw\n")
    assert [mount.number for mount in reachable(over)] == [1, 2, 5, 6, 7]


def test_a_folder_that_is_covered_further_up_is_out_of_reach() -> None:
    over = parse(HOST + "7 1 0:99 / /srv ro - tmpfs tmpfs rw\n8 7 8:1 /x /srv/x rw - ext4 /dev/sda1 rw\n")
    assert [mount.point for mount in reachable(over)] == ["/", "/proc", "/run", "/srv", "/run/user", "/srv/x"]


def test_a_file_is_found_under_all_its_names() -> None:
    mounts = reachable(parse(HOST + "7 1 8:1 /srv/a /mnt rw - ext4 /dev/sda1 rw\n"))
    assert names(mounts, "8:1", "/srv/a/b") == ["/srv/a/b", "/mnt/b"]
    assert names(mounts, "8:1", "/srv/abc") == ["/srv/abc"]
    assert names(mounts, "9:9", "/srv/a/b") == []


STRANGE = {
    "a folder under another name": ("8:1 /run/x /mnt rw - ext4 a rw", ("/mnt", "this host's /run/x")),
    "all of the host": ("8:1 / /mnt rw - ext4 a rw", ("/mnt", "this host's /")),
    "a whole folder that is shown in pieces at most": ("0:20 / /run rw - tmpfs a rw", ("/run", "this host's /run")),
    "a part of a file system that the host doesn't show": (
        "8:2 /@home /home/x rw - btrfs a rw", ("/home/x", "this host's /@home of a btrfs file system"),
    ),
    "a folder on a server that can be written to": (
        "0:30 / /srv/models rw - nfs4 a rw",
        ("/srv/models", "a nfs4 file system, which may lead off this host, and can be written to"),
    ),
    **{
        f"a folder of {kind} that can be written to": (
            f"0:30 / /srv/models rw - {kind} a rw",
            ("/srv/models", f"a {kind} file system, which may lead off this host, and can be written to"),
        )
        for kind in ("9p", "virtiofs", "fuse", "fuse.sshfs", "glusterfs", "beegfs", "gpfs", "vboxsf", "ocfs2", "lustre")
    },
    "a file system of its own": ("0:77 / /mnt rw - ext4 a rw", ("/mnt", "a ext4 file system that this host lacks")),
}  # fmt: skip


@pytest.mark.parametrize("what", STRANGE)
def test_what_no_seal_shows_is_strange(what: str) -> None:
    line, expected = STRANGE[what]
    assert expected in list(strange(parse(f"7 1 {line}\n"), reachable(parse(HOST))))


def test_what_a_seal_shows_is_not() -> None:
    seen = reachable(parse(HOST.replace("rw,vers", "ro,vers").replace(
        "3 1 0:20 / /run rw shared:2", "3 1 0:99 / /run ro"
    )))  # fmt: skip
    shown = parse("8 3 8:1 /var/lib/appliance /var/lib/appliance rw - ext4 /dev/sda1 rw\n")
    inner = [mount for mount in seen if mount.point != "/run/user"]
    assert list(strange([*inner, *shown], reachable(parse(HOST)))) == []
