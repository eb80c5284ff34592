"""Brings the schema of billing's database to a revision: `python -m services.billing.migrate`, or `make migrate`.

PostgreSQL is shared by replicas, so that its schema changes when the operator says so and never at a start. A SQLite
file is brought up by the service itself; going down takes this command there too.
"""

from __future__ import annotations

import argparse

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from services.billing.adapters.migrations.steps import NEWEST, is_downwards, migrate, problem_of_schema, revisions
from services.billing.adapters.sql.connect import SETTING, cannot_use, engine_for, name_of
from services.billing.config import BillingSettings
from services.shared.server import run
from services.shared.settings import StartupError, load


async def bring_to(address: str, target: str, *, allow_loss: bool, check: bool) -> None:
    """Migrates the database at `address`, and tells of it on standard output.

    Args:
        address: as FLOWSTACK_BILLING_DATABASE has it.
        target: the revision, `head` for the newest or `base` for none.
        allow_loss: go down as well, which drops what later revisions brought with all that is in it.
        check: change nothing, and only say whether the schema is current.

    Raises:
        StartupError: the database cannot be used, the target does not exist or lies behind, or the check failed.
    """
    engine = engine_for(address)
    name = name_of(engine)

    def work(connection: Connection) -> None:
        if check:
            problem = problem_of_schema(connection)
            if problem:
                raise StartupError(f"The database of {SETTING} {problem}")
            _say(f"{name}: the schema is current ({_revision(connection)}).")
            return
        if is_downwards(connection, target) and not allow_loss:
            raise StartupError(
                f"{name} is at revision {_revision(connection)}, and going back to {target} drops what came since, "
                "with all that is in it. Stop billing, keep a backup, and repeat the command with --allow-loss."
            )
        steps: list[str] = []

        def on_step(before: str, after: str, what: str) -> None:
            steps.append(after)
            _say(f"{name}: {before or 'empty'} -> {after or 'empty'}: {what}")

        migrate(connection, name, target, on_step)
        _say(f"{name}: {'now' if steps else 'already'} at revision {_revision(connection)}.")

    try:
        async with engine.begin() as connection:
            if engine.dialect.name == "sqlite":
                # The driver begins no transaction by itself for DDL, and a migration is to hold as a whole.
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
            await connection.run_sync(work)
    except DBAPIError as error:
        raise cannot_use(engine, error) from error
    finally:
        await engine.dispose()


def _revision(connection: Connection) -> str:
    return ", ".join(revisions(connection)) or "base"


def _say(text: str) -> None:
    print(text, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m services.billing.migrate", description=f"Brings the schema of {SETTING} to a revision."
    )
    parser.add_argument("revision", nargs="?", default=NEWEST, help="where to; the newest unless told, base for none")
    parser.add_argument("--allow-loss", action="store_true", help="go down as well, which drops what came since")
    parser.add_argument("--check", action="store_true", help="change nothing; fail where the schema is not current")
    return parser.parse_args()


async def main() -> None:
    """Does what the command line says."""
    options = _arguments()
    address = load(BillingSettings).database_url()
    await bring_to(address, options.revision, allow_loss=options.allow_loss, check=options.check)


if __name__ == "__main__":
    run("billing", main)
