"""Where callers reach the appliance."""

from __future__ import annotations

import ipaddress
from typing import Self

from pydantic import Field, model_validator

from appliance.config.section import FilePath, Section


class Tls(Section):
    """Files of the TLS certificate; a renewed one is picked up without a restart."""

    certificate: FilePath = Field(description="PEM file with the certificate and its chain.")
    key: FilePath = Field(description="PEM file with the private key.")


class Listen(Section):
    """Where internal apps reach the appliance. A socket that systemd passes takes the place of the first three."""

    host: str = Field("127.0.0.1", description="Address to listen on. Any but loopback needs `tls` or `behind_proxy`.")
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 takes a free one and prints it.")
    socket: FilePath | None = Field(
        None,
        description="Unix socket to listen on instead of `host` and `port`, such as `/run/appliance/api.sock`. "
        "The appliance's user and group may connect (mode 0660).",
    )
    tls: Tls | None = Field(None, description="Serve HTTPS with these files.")
    behind_proxy: bool = Field(
        default=False,
        description="True says: a proxy of yours in front does TLS, so plain HTTP on a non-loopback address is meant.",
    )
    shutdown_seconds: float = Field(
        30, ge=0, description="How long requests in flight may go on after a stop was asked for."
    )

    @model_validator(mode="after")
    def _one_place_without_clear_text_on_the_network(self) -> Self:
        if self.socket is not None and self.model_fields_set & {"host", "port"}:
            raise ValueError("`socket` takes the place of `host` and `port`; leave them out, or leave out `socket`")
        problem = self.objection(None if self.socket is not None else self.host)
        if problem:
            raise ValueError(problem)
        return self

    def objection(self, host: str | None) -> str | None:
        """Why these settings forbid to listen on `host`, an IP address, or on a Unix socket (None); None if not."""
        if host is None:
            return None if self.tls is None else "a Unix socket takes no `tls`: nothing on it leaves this host"
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return "host must be an IP address, such as 127.0.0.1 or 0.0.0.0, not a name"
        if address.is_loopback or self.tls is not None or self.behind_proxy:
            return None
        return (
            f"host {host} is reachable from the network: add `tls: {{certificate: ..., key: ...}}`, "
            "or set `behind_proxy: true` if a proxy of yours does TLS in front"
        )
