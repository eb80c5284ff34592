"""Whose account a call is about."""

from __future__ import annotations

from services.shared.auth import CallerKind, current_caller
from services.shared.errors import invalid_request


def account_of_call(account_id: str) -> str:
    """The account that a call acts on: a customer's is the key's, and an admin has to name it.

    The interceptor has refused a customer who names another account already.

    Raises:
        FlowStackError: INVALID_REQUEST for an admin who names none.
    """
    caller = current_caller()
    if caller.kind is CallerKind.CUSTOMER:
        return caller.account_id
    if not account_id:
        raise invalid_request("account_id", "must be set in a call with the admin token")
    return account_id
