"""A bare passthrough: the least that a gateway on FastAPI and aiohttp does, with no feature at all.

No authentication, no checks, no limits, no logs. What it costs is what the two libraries cost, and so the
yardstick for the appliance. It reaches the upstream over a Unix socket, as the appliance reaches its engines.

    python -m benchmarks.passthrough --port 9001 --socket upstream.sock
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse


def build(socket: Path) -> FastAPI:
    """The application, in front of what listens on `socket`."""
    sessions: list[aiohttp.ClientSession] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        connector = aiohttp.UnixConnector(str(socket), limit=0)
        async with aiohttp.ClientSession("http://upstream", connector=connector) as session:
            sessions.append(session)
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/chat/completions")
    async def pass_on(request: Request) -> Response:
        body = await request.body()
        answer = await sessions[0].post(request.url.path, data=body, headers={"content-type": "application/json"})
        if answer.content_type == "text/event-stream":
            return StreamingResponse(answer.content.iter_any(), answer.status, media_type="text/event-stream")
        async with answer:
            return Response(await answer.read(), answer.status, media_type="application/json")

    return app


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.passthrough", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--port", type=int, required=True, help="TCP port on 127.0.0.1")
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket of the upstream")
    options = parser.parse_args()
    uvicorn.run(
        build(options.socket), host="127.0.0.1", port=options.port, loop="uvloop", http="httptools", access_log=False
    )


if __name__ == "__main__":
    main()
