"""What every section of the config is made of: strictness, paths, and references to secrets."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict

from appliance.addresses import is_private
from appliance.errors import ConfigInvalid, Problem


class Section(BaseModel):
    """A part of the config: frozen, and refusing keys that it doesn't know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _as_path(value: object) -> object:
    return Path(value).expanduser() if isinstance(value, str) and value else value


FilePath = Annotated[Path, BeforeValidator(_as_path, json_schema_input_type=str)]


@dataclass(frozen=True, slots=True, repr=False)
class SecretReference:
    """Where a secret is, never what it is: `env.NAME` or `file:/path`."""

    text: str

    def __repr__(self) -> str:
        return f"SecretReference({self.text!r})"

    def read(self, base: Path) -> str:
        """The secret itself, stripped; a relative `file:` path starts at `base`.

        Raises `ConfigInvalid` naming the reference when nothing is there.
        """
        kind, _, name = self.text.partition(":" if self.text.startswith("file:") else ".")
        try:
            value = os.environ[name] if kind == "env" else (base / name).read_text().strip()
        except (KeyError, OSError) as cause:
            raise ConfigInvalid("secret", [Problem(self.text, "nothing is there; set it, then try again")]) from cause
        if not value or not (value.isascii() and value.isprintable()):
            raise ConfigInvalid("secret", [Problem(self.text, "must be one line of printable ASCII")])
        return value


def _secret(value: object) -> object:
    if isinstance(value, SecretReference):
        return value
    if isinstance(value, str) and re.fullmatch(r"env\.[A-Za-z_][A-Za-z0-9_]*|file:.+", value):
        return SecretReference(value)
    raise ValueError("must be a reference, `env.NAME` or `file:/path`, never the secret itself")


Secret = Annotated[SecretReference, BeforeValidator(_secret, json_schema_input_type=str)]


def may_be_private(host: str) -> bool:
    """Whether an address is one of the house, or a name might lead to one: that shows only when it is looked up."""
    try:
        return is_private(host)
    except ValueError:
        return True


def refuse_extras(field: str, url: str) -> None:
    """Raise `ValueError` when `url` holds what a base URL may not."""
    parts = urlsplit(url)
    try:
        _ = parts.port
    except ValueError:
        raise ValueError(f"{field}: the port must be a number up to 65535") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(f"{field} may hold no credentials, query or fragment; use `key: env.NAME`")
