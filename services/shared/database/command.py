"""The command that brings a service's schema to a revision: `python -m services.<name>.migrate`, or `make migrate`.

PostgreSQL is shared by replicas, so that its schema changes when the operator says so and never at a start. A SQLite
file is brought up by the service itself; going down takes this command there too.
"""

from __future__ import annotations

import argparse

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from services.shared.database.connect import cannot_use, engine_for, name_of
from services.shared.database.migrations import NEWEST, Migrations, revisions
from services.shared.settings import StartupError


async def bring_to(migrations: Migrations, address: str, target: str, *, allow_loss: bool, check: bool) -> None:
    """Migrates the database at `address`, and tells of it on standard output.

    Args:
        migrations: the schema's history.
        address: as the service's setting has it.
        target: the revision, `head` for the newest or `base` for none.
        allow_loss: go down as well, which drops what later revisions brought with all that is in it.
        check: change nothing, and only say whether the schema is current.

    Raises:
        StartupError: the database cannot be used, the target does not exist or lies behind, or the check failed.
    """
    owner = migrations.owner
    engine = engine_for(address, owner)
    name = name_of(engine)

    def work(connection: Connection) -> None:
        if check:
            problem = migrations.problem_of_schema(connection)
            if problem:
                raise StartupError(f"The database of {owner.setting} {problem}")
            _say(f"{name}: the schema is current ({_revision(connection)}).")
            return
        if migrations.is_downwards(connection, target) and not allow_loss:
            raise StartupError(
                f"{name} is at revision {_revision(connection)}, and going back to {target} drops what came since, "
                f"with all that is in it. Stop {owner.service}, keep a backup, and repeat the command with "
                "--allow-loss."
            )
        steps: list[str] = []

        def on_step(before: str, after: str, what: str) -> None:
            steps.append(after)
            _say(f"{name}: {before or 'empty'} -> {after or 'empty'}: {what}")

        migrations.migrate(connection, name, target, on_step)
        _say(f"{name}: {'now' if steps else 'already'} at revision {_revision(connection)}.")

    try:
        async with engine.begin() as connection:
            if engine.dialect.name == "sqlite":
                # The driver begins no transaction by itself for DDL, and a migration is to hold as a whole.
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
            await connection.run_sync(work)
    except DBAPIError as error:
        raise cannot_use(engine, error, owner) from error
    finally:
        await engine.dispose()


def _revision(connection: Connection) -> str:
    return ", ".join(revisions(connection)) or "base"


def _say(text: str) -> None:
    print(text, flush=True)


async def migrate_by_command_line(migrations: Migrations, address: str) -> None:
    """Does what the command line says.

    Raises:
        StartupError: as `bring_to`.
    """
    owner = migrations.owner
    parser = argparse.ArgumentParser(
        prog=f"python -m services.{owner.service}.migrate",
        description=f"Brings the schema of {owner.setting} to a revision.",
    )
    parser.add_argument("revision", nargs="?", default=NEWEST, help="where to; the newest unless told, base for none")
    parser.add_argument("--allow-loss", action="store_true", help="go down as well, which drops what came since")
    parser.add_argument("--check", action="store_true", help="change nothing; fail where the schema is not current")
    options = parser.parse_args()
    await bring_to(migrations, address, options.revision, allow_loss=options.allow_loss, check=options.check)
