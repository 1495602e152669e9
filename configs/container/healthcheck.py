"""Exit status 0 when every model can answer. Standard library only: it runs every few seconds.

Where the appliance has TLS of its own: -e APPLIANCE_HEALTH_URL=https://127.0.0.1:8000/health/ready
Where it listens on a Unix socket:      -e APPLIANCE_HEALTH_URL=unix:/run/appliance/api.sock
"""

import http.client
import os
import socket
import ssl
import sys
import urllib.request

url = os.environ.get("APPLIANCE_HEALTH_URL", "http://127.0.0.1:8000/health/ready")
# The certificate names the appliance as its clients call it, not 127.0.0.1; and this asks only whether, not who.
anyone = ssl._create_unverified_context()  # noqa: S323, SLF001
# No proxy: what HTTP_PROXY names lies outside.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=anyone))


def ask_by_path(path: str) -> None:
    """Raises OSError unless the answer is 200."""
    connection = http.client.HTTPConnection("localhost", timeout=4)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(4)
    connection.sock.connect(path)
    connection.request("GET", "/health/ready")
    status = connection.getresponse().status
    if status != http.HTTPStatus.OK:
        raise OSError(f"HTTP Error {status}")


try:
    if url.startswith("unix:"):
        ask_by_path(url.removeprefix("unix:"))
    else:
        opener.open(url, timeout=4).close()
except OSError as why:  # HTTPError is one: 503 until the engines are ready
    sys.exit(f"{url}: {why}")
