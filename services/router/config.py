"""The router's settings."""

from __future__ import annotations

import os
from pathlib import Path

from dotenv import dotenv_values
from pydantic import Field, field_validator

from services.router.catalog import base_url_fault
from services.router.limits import SessionLimits
from services.shared.secret import Secret
from services.shared.settings import CommonSettings, StartupError, is_loopback


class RouterSettings(CommonSettings):
    """What the router reads beside the common settings."""

    providers_file: Path = Path("deploy/providers.toml")
    openai_base_url: str | None = None
    anthropic_base_url: str | None = None
    bedrock_endpoint_url: str | None = None
    session_time_limit_seconds: float = Field(300, gt=0, le=3300)
    lease_seconds: float = Field(330, gt=0, le=3600)
    echo: bool | None = None
    router_workers: int = Field(1, ge=1, le=64)

    @field_validator("openai_base_url", "anthropic_base_url", "bedrock_endpoint_url")
    @classmethod
    def _is_address(cls, url: str | None) -> str | None:
        if url and (fault := base_url_fault(url)):
            raise ValueError(fault)
        return url

    @property
    def echo_enabled(self) -> bool:
        """Whether the simulator is offered: as set, else on loopback only."""
        return is_loopback(self.router_address) if self.echo is None else self.echo

    def limits(self) -> SessionLimits:
        """The bounds of a session.

        Raises:
            StartupError: the lease does not outlast the session by the margin.
        """
        limits = SessionLimits(time_limit_s=self.session_time_limit_seconds, lease_s=self.lease_seconds)
        try:
            limits.check()
        except ValueError as error:
            raise StartupError(str(error)) from None
        return limits


def operator_secret(variable: str) -> Secret | None:
    """The operator's own key called `variable`; None where there is none.

    It is looked for in the environment, in `.env`, and in the file that `<variable>_FILE` names.

    Raises:
        StartupError: the file cannot be read, or what is found is not a key.
    """
    variables = {**dotenv_values(".env"), **os.environ}
    if value := variables.get(variable):
        return _key(value, variable)
    path = variables.get(f"{variable}_FILE")
    if not path:
        return None
    try:
        content = Path(path).read_text().strip()
    except UnicodeDecodeError:
        # Without the error: it quotes the file.
        raise StartupError(f"{variable}_FILE names {path}, which is not a text file.") from None
    except OSError as error:
        raise StartupError(f"{variable}_FILE names {path}, which cannot be read ({error.strerror}).") from error
    return _key(content, f"{variable}_FILE")


def _key(value: str, source: str) -> Secret:
    """`value` as a key that fits into a header."""
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise StartupError(
            f"What {source} gives is not a key: it has to be one line of ASCII without spaces. Set the key alone."
        )
    return Secret(value)
