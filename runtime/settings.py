"""Where a service's settings come from, and those that every service has: how to reach a broker.

A setting is taken from the command line's flags, else from the environment (``TMF_`` and its name
in capitals), else from a TOML file (``--config FILE`` or ``TMF_CONFIG``), else it has its default.
"""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from protocol.validation import reason_of
from runtime.errors import SettingsError

PREFIX: Final = "TMF_"
MQTT_PORT: Final = 1883


class Address(NamedTuple):
    """Where somebody listens."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: object) -> Address:
    """Read ``mqtt://host:port``, ``host:port`` or ``host``.

    Raises:
        ValueError: it is none of them.
    """
    wanted = "give mqtt://HOST:PORT, HOST:PORT or HOST"
    given = str(text)
    try:
        url = urlsplit(given if "://" in given else f"mqtt://{given}")
        port = url.port
    except ValueError as error:
        raise ValueError(f"{given!r} cannot be read ({error}); {wanted}") from error
    if url.scheme != "mqtt":
        raise ValueError(f"{url.scheme}:// is not spoken here; {wanted}")
    if "@" in url.netloc:
        raise ValueError(f"a name and password do not belong here; {wanted}, and set them apart")
    if not url.hostname or url.path.strip("/") or url.query or url.fragment or port == 0:
        raise ValueError(f"{given!r} is no address of a broker; {wanted}")
    return Address(url.hostname, port or MQTT_PORT)


def parse_listener(text: object) -> Address | None:
    """Read ``host:port``; None stays None.

    Raises:
        ValueError: it is no address.
    """
    if text is None:
        return None
    given = str(text)
    try:
        url = urlsplit(f"//{given}")
        host, port = url.hostname, url.port
    except ValueError as error:
        raise ValueError(f"{given!r} cannot be read ({error}); give HOST:PORT") from error
    if not (host and port) or given.lower() != str(Address(host, port)):
        raise ValueError(f"{given!r} is no address to listen on; give HOST:PORT")
    return Address(host, port)


class Connection(BaseModel):
    """What it takes to reach a broker."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    broker: Annotated[Address, BeforeValidator(parse_address)] = Field(
        default=Address("localhost", MQTT_PORT),
        description="The MQTT broker: mqtt://HOST:PORT, HOST:PORT or HOST.",
    )
    username: str | None = Field(default=None, description="Name by which the broker knows us.")
    password: SecretStr | None = Field(
        default=None,
        description="Password to that name. Not a flag, because anyone could read it there.",
    )


Known = TypeVar("Known", bound=Connection)


def gather(kind: type[Known], config: Path | None, flags: dict[str, Any]) -> Known:
    """Gather settings of a kind.

    Args:
        kind: what to gather.
        config: a TOML file; if None, the one that ``TMF_CONFIG`` names, if it does.
        flags: settings by name that the command line gave; None where it did not.

    Raises:
        SettingsError: a setting is missing, unknown or unusable. One line for each.
    """
    if config is None and (named := os.environ.get(f"{PREFIX}CONFIG")):
        config = Path(named)
    if config is not None and not config.is_file():
        raise SettingsError(f"{config}: no such file; check --config or {PREFIX}CONFIG")
    environment = {
        name: os.environ[variable]
        for name in kind.model_fields
        if (variable := f"{PREFIX}{name.upper()}") in os.environ
    }
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        file = {} if config is None else tomllib.loads(config.read_text(encoding="utf-8"))
        made = kind.model_validate(file | environment | given)
    except (OSError, ValueError) as error:  # Validation and TOML errors are ValueErrors.
        if isinstance(error, ValidationError):
            lines = [_explain(problem, kind) for problem in error.errors()]
            raise SettingsError("\n".join(lines)) from error
        raise SettingsError(f"{config}: not readable as TOML: {error}") from error
    return made


def _explain(problem: ErrorDetails, kind: type[Connection]) -> str:
    setting = str(problem["loc"][0])
    if setting not in kind.model_fields:
        return f"{setting}: no such setting; docs/aggregator.md lists them"
    flag = "" if setting == "password" else f"--{setting.replace('_', '-')}, "
    reason = reason_of(problem)
    return (
        f"{setting}: {reason} (set by {flag}{PREFIX}{setting.upper()} or "
        f"`{setting} = ...` in the file of --config or {PREFIX}CONFIG)"
    )
