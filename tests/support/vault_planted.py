"""Defects of the vault to be found: bounds that are dropped from statements, or stand one off.

A property that finds none of these finds nothing. Nothing that is shipped knows of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from sqlalchemy import event, or_

from services.shared.paging import PageTokens
from services.vault.adapters.sql import documents as documents_module
from services.vault.adapters.sql import expressions, queries
from services.vault.adapters.sql.database import Database
from services.vault.adapters.sql.expressions import Expressions
from services.vault.adapters.sql.queries import SqlQueries
from services.vault.domain import filters
from services.vault.domain.filters import AnyOf, Not, Operator
from services.vault.service import queries as query_service
from tests.support.planted import swapped

Planted = Callable[[Database], AbstractContextManager[None]]
MUTANTS: dict[str, Planted] = {}


def plant(mutant: Planted) -> Planted:
    """Registers a mutant under its function's name."""
    MUTANTS[mutant.__name__] = mutant
    return mutant


def without_bound(name: str, column: str, beginning: str) -> None:
    """Plants a mutant: in statements that begin like that, a bound on a column holds for everything."""
    bound = re.compile(rf"((?:\+\s*)?(?:\w+\.)?{column} = (?:\?|%\(\w+\)s(?:::\w+ COLLATE \"C\")?))")

    @contextmanager
    def mutant(database: Database) -> Iterator[None]:
        hits = 0

        def rewrite(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
            nonlocal hits
            # SQLite's words are quoted, such as key.
            if " ".join(statement.replace('"', "").split()).startswith(beginning):
                statement, count = bound.subn(r"(\1 OR 1 = 1)", statement)
                hits += count
            return statement, parameters

        engine = database.engine.sync_engine
        event.listen(engine, "before_cursor_execute", rewrite, retval=True)
        try:
            yield
        finally:
            event.remove(engine, "before_cursor_execute", rewrite)
        assert hits, "there is no such statement any more"

    mutant.__name__ = name
    plant(mutant)


_FIND: Final = "SELECT documents.document_id, documents.size_bytes"
_RETRIEVE: Final = "SELECT documents.collection, documents.key, documents.text"
without_bound("looks_through_all_accounts", "account_id", _FIND)
without_bound("looks_through_all_collections", "collection", _FIND)
without_bound("deletes_in_all_accounts", "account_id", "DELETE FROM documents")
without_bound("deletes_in_all_collections", "collection", "DELETE FROM documents")
without_bound("replaces_in_all_accounts", "account_id", "SELECT documents.document_id, documents.version")
without_bound("retrieves_from_all_accounts", "account_id", _RETRIEVE)
without_bound("retrieves_from_all_collections", "collection", _RETRIEVE)
without_bound("lists_collections_of_all_accounts", "account_id", "SELECT collections.collection")
without_bound("counts_bytes_of_all_accounts", "account_id", "UPDATE accounts SET used_bytes")
without_bound("counts_documents_of_all_accounts", "account_id", "UPDATE collections SET")
without_bound("knows_the_expired_of_all_accounts", "account_id", "SELECT documents.collection, count(*)")
without_bound("sweeps_by_the_expired_of_all_accounts", "account_id", "SELECT documents.collection, documents.key FROM")


@plant
def reads_by_an_index_of_all_accounts(_: Database) -> AbstractContextManager[None]:
    """Neither the index that is read by nor the account is bound."""

    def make(shipped: Any) -> Any:
        def in_index(index: Any, wanted: Any) -> Any:
            return shipped(index, wanted)[1:]

        return in_index

    @contextmanager
    def both() -> Iterator[None]:
        with swapped(queries, "_in_index", make), swapped(SqlQueries, "_in_collection", _no_account(looked_up=True)):
            yield

    return both()


def _no_account(*, looked_up: bool) -> Any:
    def make(shipped: Any) -> Any:
        def in_collection(self: SqlQueries, scope: Any, *, is_looked_up: bool = False) -> Any:
            bounds = shipped(self, scope, is_looked_up=is_looked_up)
            return bounds[1:] if is_looked_up is looked_up else bounds

        return in_collection

    return make


@plant
def drops_the_account_without_an_index(_: Database) -> AbstractContextManager[None]:
    """Only the way through the collection lacks the account."""
    return swapped(SqlQueries, "_in_collection", _no_account(looked_up=False))


def _loose_select(kind: type) -> Any:
    """The last part of a filter of a kind stands beside the account's bound, as if parentheses were missing."""

    def make(shipped: Any) -> Any:
        def select(self: SqlQueries, look: Any, index: Any, *, is_looked_up: bool) -> Any:
            query = shipped(self, look, index, is_looked_up=is_looked_up)
            if index is None and isinstance(look.wanted, kind):
                query._where_criteria = (or_(query.whereclause, self._expressions.matches(look.wanted)),)
            return query

        return select

    return swapped(SqlQueries, "_select", make)


@plant
def an_or_goes_round_the_account(_: Database) -> AbstractContextManager[None]:
    """`account AND a OR b`."""
    return _loose_select(AnyOf)


@plant
def a_not_goes_round_the_account(_: Database) -> AbstractContextManager[None]:
    """`account AND a OR NOT b`."""
    return _loose_select(Not)


@plant
def takes_page_tokens_of_others(_: Database) -> AbstractContextManager[None]:
    """A page token is good for every call."""

    def make(shipped: Any) -> Any:
        return lambda self, scope, body: shipped(self, (), body)

    return swapped(PageTokens, "_tag", make)


@plant
def shows_the_last_of_a_page_again(_: Database) -> AbstractContextManager[None]:
    """A page goes on with where the last one ended, instead of after it."""

    def make(shipped: Any) -> Any:
        def after(values: Any, order: Any, position: Any) -> Any:
            alike = [value == held for value, held in zip(values, position, strict=True)]
            return or_(shipped(values, order, position), *alike[-1:])

        return after

    return swapped(queries, "after", make)


@plant
def leaves_out_one_between_pages(_: Database) -> AbstractContextManager[None]:
    """The token is that of the document that was looked at beyond the page."""

    def make(shipped: Any) -> Any:
        def fitting(found: Any) -> Any:
            return shipped(found)[:-1] or found

        return fitting

    return swapped(query_service, "_fitting", make)


def _operators(change: dict[Operator, Operator]) -> Any:
    def make(shipped: Any) -> Any:
        return lambda code, operator, operand: shipped(code, change.get(operator, operator), operand)

    return swapped(expressions, "range_of", make)


@plant
def greater_takes_what_is_equal(_: Database) -> AbstractContextManager[None]:
    """$gt is $gte."""
    return _operators({Operator.GT: Operator.GTE})


@plant
def at_most_leaves_out_what_is_equal(_: Database) -> AbstractContextManager[None]:
    """$lte is $lt."""
    return _operators({Operator.LTE: Operator.LT})


@plant
def a_range_has_no_kind(_: Database) -> AbstractContextManager[None]:
    """What is more than a number is also every text."""

    def make(shipped: Any) -> Any:
        return lambda code, operator, operand: shipped(code, operator, operand)[:1]

    return swapped(expressions, "range_of", make)


@plant
def an_index_is_bounded_one_off(_: Database) -> AbstractContextManager[None]:
    """Where a range begins in an index is left out of it."""

    def make(shipped: Any) -> Any:
        def bounds(condition: Any) -> Any:
            found = shipped(condition)
            if condition.operator in (Operator.GTE, Operator.LTE):
                found.append(queries._E.value != queries.sort_code(condition.codes[0]))
            return found

        return bounds

    return swapped(queries, "_bounds", make)


@plant
def an_index_is_bounded_by_the_whole_value(_: Database) -> AbstractContextManager[None]:
    """Entries are cut, and what they are compared with is not."""
    return swapped(queries, "sort_code", lambda _: lambda code: code)


@plant
def a_not_lets_nothing_through_where_nothing_is(_: Database) -> AbstractContextManager[None]:
    """A missing value makes a comparison NULL, as it does in SQL by itself."""

    def make(shipped: Any) -> Any:
        def matches(self: Expressions, wanted: Any) -> Any:
            if isinstance(wanted, Not) and isinstance(wanted.filter, filters.Condition):
                return shipped(self, wanted) & (self.code(wanted.filter.path) > "")
            return shipped(self, wanted)

        return matches

    return swapped(Expressions, "matches", make)


@plant
def the_expired_are_seen_for_a_moment(_: Database) -> AbstractContextManager[None]:
    """What expires now is still there."""

    def make(_: Any) -> Any:
        return lambda now_us: or_(queries._D.expire_us == 0, queries._D.expire_us >= now_us)

    @contextmanager
    def both() -> Iterator[None]:
        with swapped(queries, "is_live", make), swapped(documents_module, "is_live", make):
            yield

    return both()
