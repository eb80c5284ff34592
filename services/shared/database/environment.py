"""What Alembic runs its steps in: the connection that the caller has open. Each service's `env.py` calls it."""

from __future__ import annotations

from alembic import context
from alembic.runtime.migration import MigrationInfo
from sqlalchemy import MetaData


def _told(ctx: object, step: MigrationInfo, heads: object, run_args: object) -> None:  # noqa: ARG001  # by name
    on_step = context.config.attributes.get("on_step")
    if on_step is not None:
        what = (getattr(step.up_revision, "doc", None) or "").partition("\n")[0]
        before, after = "".join(step.source_revision_ids), "".join(step.destination_revision_ids)
        on_step(before, after, what if step.is_upgrade else f"undone: {what}")


def run_migrations(metadata: MetaData) -> None:
    """Takes the steps that Alembic was asked for."""
    connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=metadata, on_version_apply=_told)
    with context.begin_transaction():
        context.run_migrations()
