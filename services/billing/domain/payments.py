"""What is done at the payment provider, where the operator has one."""

from __future__ import annotations

from enum import IntEnum


class PaymentErrandKind(IntEnum):
    """What is to be done there. Stored."""

    PUBLISH = 1
    """The invoice is sent to the customer."""
    PAID = 2
    """It was paid elsewhere."""
    VOID = 3
    """It is void."""
    CREDIT = 4
    """A credit note takes from it."""
