"""Reads the catalogue from its file."""

from __future__ import annotations

import tomllib
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from services.billing.domain.catalogue import Catalogue, Offer, Plan
from services.billing.domain.model import SupportLevel
from services.shared.periods import us_from_time
from services.shared.settings import StartupError

SHIPPED: Final = Path(__file__).parent.parent / "catalogue.toml"

_Id = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9-]{0,62}$")]
_Provider = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Feature = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]{0,63}$")]
_Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
_Price = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000_000_000)]
_Version = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
_Time = Annotated[datetime, msgspec.Meta(tz=True)]
_Support = Literal["community", "email", "priority", "dedicated"]


class _Common(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    plan_id: _Id
    display_name: str
    description: str
    price_micro_usd: _Price | None = None
    session_limit: _Count
    managed_providers: tuple[_Provider, ...]
    max_concurrent_sessions: _Count | None = None
    max_output_tokens: _Count
    max_tool_rounds: _Count
    support_level: _Support
    features: tuple[_Feature, ...]


class _Plan(_Common, frozen=True, forbid_unknown_fields=True, kw_only=True):
    version: _Version
    byok_required: bool = False
    contact_sales: bool = False
    upgrade_plan_id: str = ""
    effective_time: _Time
    retire_time: _Time | None = None

    def to_plan(self) -> Plan:
        return Plan(
            self.plan_id,
            self.version,
            self.display_name,
            self.description,
            self.price_micro_usd,
            self.session_limit,
            self.managed_providers,
            self.byok_required,
            self.max_concurrent_sessions,
            self.max_output_tokens,
            self.max_tool_rounds,
            SupportLevel[self.support_level.upper()],
            self.features,
            self.contact_sales,
            self.upgrade_plan_id,
            us_from_time(self.effective_time),
            0 if self.retire_time is None else us_from_time(self.retire_time),
        )


class _Offer(_Common, frozen=True, forbid_unknown_fields=True, kw_only=True):
    offer_id: _Id
    plan_version: _Version
    # An offer leaves nothing open.
    price_micro_usd: _Price
    max_concurrent_sessions: _Count

    def to_offer(self) -> Offer:
        return Offer(
            self.offer_id,
            self.display_name,
            self.description,
            self.plan_id,
            self.plan_version,
            self.price_micro_usd,
            self.session_limit,
            self.managed_providers,
            self.max_concurrent_sessions,
            self.max_output_tokens,
            self.max_tool_rounds,
            SupportLevel[self.support_level.upper()],
            self.features,
        )


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    plans: tuple[_Plan, ...]
    offers: tuple[_Offer, ...] = ()


def load_catalogue(path: Path | None = None) -> Catalogue:
    """Reads and checks the catalogue; the one that ships where `path` is None.

    Raises:
        StartupError: the file cannot be read, or is not a catalogue; the message says where.
    """
    chosen = path or SHIPPED
    try:
        with chosen.open("rb") as file:
            content = msgspec.convert(tomllib.load(file), type=_File)
        return Catalogue([plan.to_plan() for plan in content.plans], [offer.to_offer() for offer in content.offers])
    except OSError as error:
        raise StartupError(
            f"The catalogue {chosen} cannot be read ({error.strerror}). Set FLOWSTACK_BILLING_CATALOGUE_FILE."
        ) from error
    except (msgspec.ValidationError, tomllib.TOMLDecodeError, ValueError) as error:
        raise StartupError(f"The catalogue {chosen} is not valid: {error}. Correct it and start again.") from error
