"""The canary tells our own attempts from whoever else knocks, and gives nothing away that leads somewhere."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import pytest

from appliance.egress.canary import Canary
from appliance.seal import probes


def test_what_a_stranger_sends_is_no_arrival() -> None:
    with Canary() as canary:
        silent = [socket.create_connection(canary.order["tcp4"]) for _ in range(3)]
        silent[0].sendall(b"GET / HTTP/1.1\r\n\r\n")
        silent[1].sendall(b"tcp4")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as scanner:
            scanner.sendto(b"udp4", tuple(canary.order["udp4"]))
        outcome = probes.run({"tcp4": probes.attempts(canary.order)["tcp4"]})
        assert outcome == {"tcp4": "done"}
        assert canary.arrived() == {"tcp4"}
        assert canary.strangers == 4
        for each in silent:
            each.close()


def test_a_connection_that_was_handed_out_leads_to_nothing_of_the_host() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, Canary() as canary:
        canary.hand_out(Path(folder) / "accepted")
        accepted = probes.fetch_accepted(str(Path(folder) / "accepted"))
        assert len(accepted) == len(probes.ACCEPTED)
        with socket.create_server(("127.0.0.1", 0)) as host:
            probes._disconnect(accepted[0])
            with pytest.raises(ConnectionRefusedError):
                accepted[0].connect(host.getsockname())
        # the control: in its own network it gets somewhere
        probes._disconnect(accepted[1])
        accepted[1].connect(tuple(canary.order["reuse"]))
        for each in accepted:
            each.close()
