"""What every command works with: who calls, where, and how answers are shown."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import typer

from flowstack._client import Client
from flowstack._connection import KEY_SETTING, Connection, connection_from
from flowstack._endpoints import endpoints_from
from flowstack._errors import ConfigurationError
from flowstack._methods import Unary
from flowstack.cli.inputs import secret_in
from flowstack.cli.output import Output

Q = TypeVar("Q")
R = TypeVar("R")

ADMIN_TOKEN_SETTING: Final = "FLOWSTACK_ADMIN_TOKEN"  # noqa: S105  # a variable's name
PAGE_SIZE: Final = 100


class Shell:
    """One run of the command line.

    Args:
        output: how answers are shown.
        environment: the variables, for keys and addresses.
        api_key: the customer's key, in place of the variable's.
        endpoint: one address for all services, in place of the variables'.
        account_id: the account that the operator acts on; the admin token is sent then. Empty: the key's own.
    """

    def __init__(
        self,
        output: Output,
        environment: Mapping[str, str] = os.environ,
        api_key: str | None = None,
        endpoint: str | None = None,
        account_id: str = "",
    ) -> None:
        self.output = output
        self.environment = environment
        self.api_key = api_key
        self.endpoint = endpoint
        self.account_id = account_id

    @cached_property
    def client(self) -> Client:
        """Calls as the customer, or as the operator where an account was named.

        Raises:
            ConfigurationError: no key or token, or a bad address.
        """
        if self.account_id:
            return self.admin
        if not self.api_key and not self.environment.get(KEY_SETTING):
            raise ConfigurationError(
                f"There is no API key. Set {KEY_SETTING}, or give --api-key. The first key comes from the operator: "
                "`make run` prints one, and `flowstack admin accounts create NAME EMAIL --key` makes one."
            )
        return Client(connection_from(self.api_key, self.environment, self.endpoint))

    @cached_property
    def admin(self) -> Client:
        """Calls as the operator.

        Raises:
            ConfigurationError: no admin token, or a bad address.
        """
        metadata = (("authorization", f"Bearer {self._admin_token()}"),)
        return Client(Connection(endpoints_from(self.environment, self.endpoint), metadata))

    def check_customer(self, command: str) -> None:
        """Sees to it that a command which only a customer's key can run has one.

        Raises:
            ConfigurationError: no key, or an account was named.
        """
        if self.account_id:
            raise ConfigurationError(
                f"`flowstack {command}` runs by the customer's own API key, not for --account. Leave --account out."
            )
        _ = self.client

    def _admin_token(self) -> str:
        file = self.environment.get(f"{ADMIN_TOKEN_SETTING}_FILE")
        setting = f"{ADMIN_TOKEN_SETTING}_FILE" if file else ADMIN_TOKEN_SETTING
        text = secret_in(Path(file), setting) if file else self.environment.get(ADMIN_TOKEN_SETTING, "")
        token = text.split(",")[0].strip()
        if not token:
            raise ConfigurationError(
                f"This is the operator's. Set {ADMIN_TOKEN_SETTING}, or {ADMIN_TOKEN_SETTING}_FILE to the file that "
                "holds the token; `make run` makes var/admin-token."
            )
        if not (token.isascii() and token.isprintable()):
            raise ConfigurationError(
                f"The admin token in {setting} is malformed: it has to be printable ASCII, copied whole."
            )
        return token

    def call(self, method: Unary[Q, R], *, safe: bool = False, **fields: Any) -> R:
        """Calls a method for the account that is meant; `fields` are the request's.

        Raises:
            FlowStackError: whatever the service answered.
        """
        if self.account_id:
            fields.setdefault("account_id", self.account_id)
        return self.client.call(method, method.request(**fields), safe=safe)

    def pages(self, method: Unary[Any, Any], field: str, limit: int, **fields: Any) -> Iterator[Any]:
        """The items of a list method, page by page, up to `limit` of them."""
        token = ""
        while limit > 0:
            page = self.call(method, page_size=min(limit, PAGE_SIZE), page_token=token, **fields)
            for item in list(getattr(page, field))[:limit]:
                yield item
                limit -= 1
            token = page.next_page_token
            if not token:
                return

    def close(self) -> None:
        """Closes what was opened."""
        for name in ("client", "admin"):
            client = self.__dict__.pop(name, None)
            if client is not None:
                client.close()


def shell_of(context: typer.Context) -> Shell:
    """The shell of a command."""
    shell = context.find_object(Shell)
    assert shell is not None
    return shell
