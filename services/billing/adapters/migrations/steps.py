"""Runs the migrations, and says how a database's schema stands against them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from services.shared.settings import StartupError

_FOLDER: Final = Path(__file__).parent


def config_for(connection: Connection) -> Config:
    """Alembic's configuration for an open connection; the caller's transaction is the migration's."""
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["connection"] = connection
    return config


def migrate(connection: Connection, name: str) -> None:
    """Brings the schema to the newest revision.

    Args:
        connection: in a transaction, which the caller commits.
        name: what the database is called in a message.

    Raises:
        StartupError: the schema is of a newer version of billing.
    """
    config = config_for(connection)
    if _unknown(connection, ScriptDirectory.from_config(config)):
        raise StartupError(
            f"{name} was written by a newer version of billing. Run that version, or set FLOWSTACK_BILLING_DATABASE "
            "to another database."
        )
    command.upgrade(config, "head")


def problem_of_schema(connection: Connection) -> str:
    """What keeps billing from serving with this schema, as the end of a sentence about it; empty for nothing."""
    scripts = ScriptDirectory.from_config(config_for(connection))
    if _unknown(connection, scripts):
        return "was written by a newer version of billing. Run that version, or name another database."
    if set(_revisions(connection)) != set(scripts.get_heads()):
        return "has not the current schema. Run `make migrate`; billing never changes a shared database by itself."
    return ""


def _revisions(connection: Connection) -> tuple[str, ...]:
    return MigrationContext.configure(connection).get_current_heads()


def _unknown(connection: Connection, scripts: ScriptDirectory) -> bool:
    known = {script.revision for script in scripts.walk_revisions()}
    return not known.issuperset(_revisions(connection))
