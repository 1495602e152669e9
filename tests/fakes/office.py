"""The API with real keys on a real store and no model behind it: for who may do what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from starlette.routing import BaseRoute

from appliance.accounts.keys import KeyRecord, Keyring
from appliance.accounts.registry import KeyOrder, Registry
from appliance.accounts.store import Store
from appliance.accounts.watch import Watch
from appliance.api import routes
from appliance.api.exchange import House
from appliance.audit.archive import Archive
from appliance.config import Accounts, Limits, Prices, Privacy, UseCase
from appliance.config.accounts import ModelPrice
from appliance.config.audit import Audit
from appliance.core import DataClass, Reply, Request, Role, ServiceClass
from appliance.errors import NotFound, Refused
from appliance.observe import Metrics
from tests.fakes import journal

PEPPER = bytes(range(32))
PRICES = Prices(models={"chat": ModelPrice(prompt_euros_per_million=1, completion_euros_per_million=2)})
USE_CASES = {"mail": UseCase(), "night": UseCase(service_class=ServiceClass.BATCH, data_class=DataClass.CONFIDENTIAL)}


class _Pipeline:
    """Answers everything, and remembers what it was asked and what was refused."""

    proven = True

    def __init__(self) -> None:
        self.ran: list[Request] = []
        self.refusals: list[tuple[str | None, Refused]] = []

    async def run(self, request: Request, reply: Reply, instead: Any) -> None:
        self.ran.append(request)
        await reply.whole(b"{}")

    def rate(self, id_: str, caller: Any, rating: str) -> None:
        raise NotFound("there is no such answer", code="unknown_request", param="request_id")

    def refused(self, id_: str, caller: Any, operation: str | None, refusal: Refused) -> None:
        self.refusals.append((caller.key_id if caller is not None else None, refusal))


class _Fleet:
    """One model, `chat`."""

    def __init__(self) -> None:
        self.served: Any = {
            "chat": SimpleNamespace(
                upstream_name="chat", context_length=512, default_tokens=16, engine=None, title="Chat", ready=True,
                well=True, base=None,
            )
        }  # fmt: skip
        self.names = list(self.served)

    def find(self, name: str) -> Any:
        if name not in self.served:
            raise NotFound("there is no such model", code="model_not_found", param="model")
        return self.served[name]


class Office:
    """A registry of keys in `folder`, the keyring that follows it, and the application on top.

    What it does is put on record in memory only, unless it is given an archive.
    """

    def __init__(self, folder: Path, archive: Archive | None = None) -> None:
        self.store = Store.sqlite(folder)
        self.registry = Registry(self.store, PEPPER)
        self.keyring = Keyring(PEPPER)
        self.watch = Watch(self.keyring, self.registry)
        self.pipeline: Any = _Pipeline()
        accounts = Accounts(use_cases=USE_CASES, prices=PRICES)
        fleet: Any = _Fleet()
        usage: Any = _Usage()
        self.archive = archive or journal.archive(folder)
        self.house = House(
            keys=self.keyring, fleet=fleet, pipeline=self.pipeline, metrics=Metrics(), limits=Limits(),
            accounts=accounts, watch=self.watch, usage=usage, archive=self.archive, audit=Audit(),
            privacy=Privacy(),
        )  # fmt: skip
        self.app = routes.build(self.house, "1")

    def close(self) -> None:
        self.watch.close()
        self.store.close()
        self.archive.subjects.close()

    async def key(self, role: Role = Role.USER, **order: Any) -> tuple[KeyRecord, str]:
        """A key that opens from now on."""
        made = self.registry.create(KeyOrder(role=role, **order))
        await self.watch.look()
        return made

    def client(self, key: str | None = None, **headers: str) -> httpx.AsyncClient:
        """Asks the application directly."""
        credential = {"authorization": f"Bearer {key}"} if key is not None else {}
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://office", headers={**credential, **headers}
        )


class _Usage:
    """Answers nothing: who may ask for usage is known before it is read."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"{name} was asked for")


@contextmanager
def office(folder: Path, archive: Archive | None = None) -> Iterator[Office]:
    """An office that is closed in the end."""
    made = Office(folder, archive)
    try:
        yield made
    finally:
        made.close()


def routes_of(app: Any) -> list[BaseRoute]:
    """All routes of an application, those behind mounts and nested routers, too."""
    found: list[BaseRoute] = []
    for route in app.routes:
        found.append(route)
        if getattr(route, "routes", None):
            found += routes_of(route)
    return found
