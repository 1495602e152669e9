"""What an address is, and how it is written."""

from __future__ import annotations


def test_a_listener_is_noted_as_the_kernels_tables_are_read() -> None:
    """Else a verification wouldn't find a passed IPv6 listener among the gateway's sockets."""
    from appliance.addresses import with_port
    from appliance.egress.sockets import _endpoint

    assert _endpoint("00000000000000000000000001000000:1F90") == with_port("::1", 8080) == "[::1]:8080"
    assert _endpoint("0100007F:1F90") == with_port("127.0.0.1", 8080)
