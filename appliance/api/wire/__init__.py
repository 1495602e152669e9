"""The outermost door: what may arrive on a socket, how slowly, and how a refusal is said.

uvicorn's httptools protocol parses; this module adds what a server that faces a network needs and
uvicorn leaves to a proxy: deadlines, sizes, one reading of every request, answers that arrive, a
certificate that renews itself. A request refused here never reaches the application.

    accept ─ too many? ─ head ─ one reading? ─ body ─ application ─ idle ─┐
               503       408      400          408         slow reader:   │
                         431                   413         hung up        │
                           └───────────────── next request ───────────────┘

No request sets a timer: a connection holds its deadline as a float, and one walk over all
connections, at most once a second, finds those past theirs.
"""

from appliance.api.wire.certificate import Certificate
from appliance.api.wire.connection import PEER
from appliance.api.wire.limits import WireLimits
from appliance.api.wire.listening import base_url, listen_tcp, listen_unix, passed_socket
from appliance.api.wire.server import WireServer, build_server

__all__ = [
    "PEER",
    "Certificate",
    "WireLimits",
    "WireServer",
    "base_url",
    "build_server",
    "listen_tcp",
    "listen_unix",
    "passed_socket",
]
