"""`flowstack keys`: API keys."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flowstack._errors import ConfigurationError
from flowstack._methods import AccountService
from flowstack.cli.shell import Shell, shell_of
from flowstack.cli.values import hours, time_from, time_of, word

app = typer.Typer(help="API keys: make, rotate and revoke them.", no_args_is_help=True)

KeyId = Annotated[str, typer.Argument(help="The key's id, key_…; `flowstack keys list` shows it.")]
Expires = Annotated[str | None, typer.Option(help="When it ends, such as 2027-01-01. Never, where left out.")]


@app.command("list")
def list_(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Revoked and expired ones too.")] = False,
) -> None:
    """The account's keys. Their secrets are not kept anywhere."""
    shell = shell_of(context)
    found = list(shell.pages(AccountService.ListApiKeys, "api_keys", 10_000, include_inactive=every))
    rows = [
        (
            key.api_key_id,
            key.display_name,
            word(key, "state"),
            time_of(key, "create_time"),
            time_of(key, "last_use_time") or "never",
            time_of(key, "expire_time") or "never",
        )
        for key in found
    ]
    columns = ("@key", "name", "state", "made", "last used", "expires")
    shell.output.table(columns, rows, {"api_keys": found}, "There are no keys.")


@app.command()
def create(
    context: typer.Context, name: Annotated[str, typer.Argument(help="What it is for.")], expires: Expires = None
) -> None:
    """Makes a key. Its secret is shown once."""
    if not name.strip():
        raise ConfigurationError("The key's name is empty. Say what the key is for, such as laptop or ci.")
    shell = shell_of(context)
    fields: dict[str, Any] = {} if expires is None else {"expire_time": time_from(expires)}
    answer = shell.call(AccountService.CreateApiKey, display_name=name, **fields)
    _tell_secret(shell, answer.api_key.api_key_id, answer.secret, answer)


@app.command()
def rotate(
    context: typer.Context,
    key: KeyId,
    overlap_hours: Annotated[
        float, typer.Option(min=0, max=720, help="How long the old key goes on working, up to 30 days.")
    ] = 24.0,
    expires: Expires = None,
) -> None:
    """Makes a key's successor; both work during the overlap."""
    shell = shell_of(context)
    fields: dict[str, Any] = {} if expires is None else {"expire_time": time_from(expires)}
    answer = shell.call(AccountService.RotateApiKey, api_key_id=key, overlap=hours(overlap_hours), **fields)
    _tell_secret(shell, answer.api_key.api_key_id, answer.secret, answer)
    if not shell.output.as_json:
        shell.output.say(f"The old key works until {time_of(answer.previous_api_key, 'expire_time')}.")


@app.command()
def revoke(context: typer.Context, key: KeyId) -> None:
    """Ends a key now. Running sessions finish."""
    shell = shell_of(context)
    answer = shell.call(AccountService.RevokeApiKey, api_key_id=key)
    shell.output.say(f"{answer.api_key.api_key_id} is revoked.", answer)


def _tell_secret(shell: Shell, key_id: str, secret: str, answer: object) -> None:
    if shell.output.as_json:
        shell.output.json(answer)
    else:
        shell.output.say(f"{key_id} is made. Its secret is shown this once; keep it safe:")
        shell.output.write(f"{secret}\n")
