"""Exit status 0 when every model can answer. Standard library only: it runs every few seconds.

Where the appliance has TLS of its own: -e APPLIANCE_HEALTH_URL=https://127.0.0.1:8000/health/ready
"""

import os
import ssl
import sys
import urllib.request

url = os.environ.get("APPLIANCE_HEALTH_URL", "http://127.0.0.1:8000/health/ready")
# The certificate names the appliance as its clients call it, not 127.0.0.1; and this asks only whether, not who.
anyone = ssl._create_unverified_context()  # noqa: S323, SLF001
# No proxy: what HTTP_PROXY names lies outside.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=anyone))
try:
    opener.open(url, timeout=4).close()
except OSError as why:  # HTTPError is one: 503 until the engines are ready
    sys.exit(f"{url}: {why}")
