"""Runs the migrations, and says how a database's schema stands against them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from services.shared.database.connect import Owner
from services.shared.settings import StartupError

NEWEST: Final = "head"
"""The name of the newest revision."""

OnStep = Callable[[str, str, str], None]
"""Is told of a step: the revision before it, the one after it, and what it is about; empty for no revision."""

_LOCK: Final = 0x666C6F77
"""The advisory lock that a migration holds on PostgreSQL."""


@dataclass(frozen=True, slots=True)
class Migrations:
    """The history of one service's schema, by Alembic."""

    owner: Owner
    folder: Path
    """Where `env.py` and `versions` are."""

    def config_for(self, connection: Connection) -> Config:
        """Alembic's configuration for an open connection; the caller's transaction is the migration's."""
        config = Config()
        config.set_main_option("script_location", str(self.folder))
        config.attributes["connection"] = connection
        return config

    def migrate(self, connection: Connection, name: str, target: str = NEWEST, on_step: OnStep | None = None) -> None:
        """Brings the schema to a revision, up or down; by default to the newest.

        Args:
            connection: in a transaction, which the caller commits.
            name: what the database is called in a message.
            target: the revision; `base` for an empty database.
            on_step: is told of each step that was taken.

        Raises:
            StartupError: the schema is of a newer version of the service, or there is no such revision.
        """
        config = self.config_for(connection)
        config.attributes["on_step"] = on_step
        steps = _steps_in(self.folder)
        if connection.dialect.name == "postgresql":
            # One at a time, and as long as it takes; but what cannot be locked at once is not waited for.
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        if not steps.known.issuperset(present := revisions(connection)):
            raise StartupError(
                f"{name} was written by a newer version of {self.owner.service}. Run that version, or set "
                f"{self.owner.setting} to another database."
            )
        if target != "base" and target not in (NEWEST, *steps.known):
            raise StartupError(f"There is no revision {target}. There are: base, {', '.join(sorted(steps.known))}.")
        if target == NEWEST and steps.heads == set(present):
            return
        if self.is_downwards(connection, target):
            command.downgrade(config, target)
        else:
            command.upgrade(config, target)

    def is_downwards(self, connection: Connection, target: str) -> bool:
        """Whether `target` lies behind the schema's revision, so that going there drops what came since."""
        if target == NEWEST:
            return False
        order = _steps_in(self.folder).order
        present = [order.index(revision) for revision in revisions(connection) if revision in order]
        return bool(present) and (target == "base" or (target in order and order.index(target) > min(present)))

    def problem_of_schema(self, connection: Connection) -> str:
        """What keeps the service from serving with this schema, as the end of a sentence; empty for nothing."""
        service = self.owner.service
        steps, present = _steps_in(self.folder), set(revisions(connection))
        if not steps.known.issuperset(present):
            return f"was written by a newer version of {service}. Run that version, or name another database."
        if present != steps.heads:
            return (
                f"has not the current schema. Run `make migrate`; {service} never changes a shared database by itself."
            )
        return ""


def revisions(connection: Connection) -> tuple[str, ...]:
    """The schema's revision; empty for an empty database."""
    return MigrationContext.configure(connection).get_current_heads()


@dataclass(frozen=True, slots=True)
class _Steps:
    """The revisions that this version has."""

    order: tuple[str, ...]
    """From the newest to the oldest."""
    heads: frozenset[str]

    @property
    def known(self) -> frozenset[str]:
        return frozenset(self.order)


@functools.cache
def _steps_in(folder: Path) -> _Steps:
    # Once for a process: Alembic runs every step's file to know its revision.
    config = Config()
    config.set_main_option("script_location", str(folder))
    scripts = ScriptDirectory.from_config(config)
    order = tuple(script.revision for script in scripts.walk_revisions())
    return _Steps(order, frozenset(scripts.get_heads()))
