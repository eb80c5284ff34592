"""What billing knows: accounts, API keys, subscriptions and their terms.

Times are microseconds since 1970 in UTC, 0 where unset; money is integer micro-dollars. The numbers of every
enumeration are the contract's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class AccountState(IntEnum):
    """Where an account stands."""

    ACTIVE = 1
    SUSPENDED = 2
    DELETED = 3


class ApiKeyState(IntEnum):
    """Where an API key stands."""

    ACTIVE = 1
    ROTATING = 2
    REVOKED = 3
    EXPIRED = 4


class SupportLevel(IntEnum):
    """The support that comes with a plan."""

    COMMUNITY = 1
    EMAIL = 2
    PRIORITY = 3
    DEDICATED = 4


class SubscriptionState(IntEnum):
    """Where a subscription stands."""

    ACTIVE = 1
    CANCELLING = 2
    ENDED = 3


class ChangeKind(IntEnum):
    """What a change of a subscription is."""

    START = 1
    UPGRADE = 2
    DOWNGRADE = 3
    LATERAL = 4
    CANCELLATION = 5
    REVERT = 6
    NONE = 7


class ChangeState(IntEnum):
    """Where a change of a subscription stands."""

    APPLIED = 1
    PENDING = 2
    DROPPED = 3
    PREVIEW = 4


@dataclass(frozen=True, slots=True)
class Account:
    """A customer."""

    account_id: str
    display_name: str
    email: str
    subscription_id: str
    """The current subscription; an account whose subscription ended keeps it until a new one starts."""
    plan_id: str
    """The plan in force: the current subscription's."""
    state: AccountState
    suspend_reason: str
    suspend_us: int
    suspend_until_us: int
    create_us: int
    update_us: int
    delete_us: int
    purge_us: int
    version: int
    """Counts the account's changes, from 1."""

    @property
    def etag(self) -> str:
        """Changes with the account."""
        return f"a{self.version}"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key, as far as billing knows it: the secret is its holder's alone."""

    api_key_id: str
    account_id: str
    display_name: str
    digest: bytes
    """HMAC-SHA256 of the whole key under the pepper."""
    create_us: int
    expire_us: int
    revoke_us: int
    last_use_us: int
    rotated_from: str
    rotated_to: str

    def state_at(self, now_us: int) -> ApiKeyState:
        """Where the key stands at `now_us`; revoked for good comes before expired."""
        if self.revoke_us:
            return ApiKeyState.REVOKED
        if self.expire_us and now_us >= self.expire_us:
            return ApiKeyState.EXPIRED
        return ApiKeyState.ROTATING if self.rotated_to else ApiKeyState.ACTIVE


@dataclass(frozen=True, slots=True)
class Terms:
    """What a subscription has: the plan's terms as they were sold, with a contract's on top."""

    plan_id: str
    plan_version: int
    contract_id: str
    price_micro: int
    """The fee for one month, in micro-dollars."""
    session_limit: int
    managed_providers: tuple[str, ...]
    max_concurrent_sessions: int
    max_output_tokens: int
    max_tool_rounds: int
    support_level: SupportLevel
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contract:
    """An account's own terms on top of a plan."""

    contract_id: str
    offer_id: str
    """The public offer that filled what was left open; empty for none."""
    terms: Terms
    """As they were agreed, with what the offer and the plan filled in."""
    effective_us: int
    end_us: int
    """Until when it was agreed; 0 for no end."""
    reference: str
    """The operator's own, such as the number of the signed paper."""


class ScheduledKind(IntEnum):
    """What brings new terms."""

    PLAN = 1
    """A change that the customer can still revert."""
    CONTRACT_START = 2
    CONTRACT_END = 3


@dataclass(frozen=True, slots=True)
class ScheduledTerms:
    """Terms to come. When they really begin depends on what holds before them: see `renewal.timeline`."""

    effective_us: int
    """The earliest moment."""
    kind: ScheduledKind
    terms: Terms | None
    """None where the subscription ends instead."""
    change_id: str
    """Empty for the end of a contract, which nobody asks for by itself."""
    starts_anew: bool = False
    """They begin a new subscription where this one has ended by then."""
    contract_id: str = ""
    """Of the end of a contract: which one. It means nothing once another contract is in force."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """An account's subscription to a plan."""

    subscription_id: str
    account_id: str
    terms: Terms
    anchor_us: int
    """The start, from which every period is counted. Never moves."""
    end_us: int
    """When it ends or ended; 0 while it renews."""
    version: int
    """Counts changes, from 1; a renewal is none. A subscription goes on from the one that it replaces."""
    billed_us: int
    """Start of the first period whose fee is not invoiced yet."""
    stated_us: int
    """Start of the first period whose closing statement is not made yet."""
    schedule: tuple[ScheduledTerms, ...] = ()
    """In the order of their earliest moments."""
    contract: Contract | None = None
    """The one that was put last, while it holds or is to come."""
    cancel_change_id: str = ""
    """The cancellation that waits for `end_us`."""

    @property
    def etag(self) -> str:
        """Changes with the subscription."""
        return f"s{self.version}"

    def state_at(self, now_us: int) -> SubscriptionState:
        """Where the subscription stands at `now_us`."""
        if not self.end_us:
            return SubscriptionState.ACTIVE
        return SubscriptionState.CANCELLING if now_us < self.end_us else SubscriptionState.ENDED

    @property
    def pending_change_id(self) -> str:
        """The downgrade or cancellation that can still be reverted; empty for none."""
        plans = [item.change_id for item in self.schedule if item.kind is ScheduledKind.PLAN]
        return plans[0] if plans else self.cancel_change_id

    @property
    def pending_terms(self) -> Terms | None:
        """The terms of the pending downgrade; None for none."""
        return next((item.terms for item in self.schedule if item.kind is ScheduledKind.PLAN), None)


@dataclass(frozen=True, slots=True)
class SubscriptionChange:
    """One change of a subscription: done, waiting or dropped."""

    change_id: str
    account_id: str
    subscription_id: str
    kind: ChangeKind
    state: ChangeState
    from_terms: Terms | None
    to_terms: Terms | None
    request_us: int
    effective_us: int
    drop_us: int
    amount_micro: int
    """What is charged for it at once."""
    invoice_id: str
    request_id: str
