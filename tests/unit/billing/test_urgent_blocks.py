"""A budget that blocks is told to quota at once, whatever stands in the store from earlier periods."""

from __future__ import annotations

from typing import Any

from services.billing.adapters.sql.database import Database
from services.billing.domain.alerts import AlertSettings, Budget, BudgetAction
from services.billing.domain.prices import ModelPrice, Rates
from services.billing.service.alert_settings import SettingsChange
from tests.support.clock import DAY_US
from tests.unit.billing.test_alerts_model import CUSTOMER, World


class DollarsForTokens:
    """Each token costs a dollar."""

    version, price_us = "v1", 0

    def price_of(self, *_: object) -> ModelPrice:
        return ModelPrice("v1", Rates(1_000_000_000_000, 0))


async def spend(world: World, account_id: str) -> None:
    entry = await world.session(account_id, world.clock.now_us())
    byok: dict[str, Any] = {"credential_mode": 2, "served_credential_mode": 2, "input_tokens": 2, "output_tokens": 0}
    await world.book(0, [entry._replace(**byok)])


async def test_a_budget_that_the_next_period_crosses_too_before_its_renewal(database: Database) -> None:
    world = World(database)
    books = world.replicas[0]
    object.__setattr__(books.context, "prices", DollarsForTokens())
    account_id = await books.open_account("free")
    world.accounts = [account_id] * 2
    wanted = AlertSettings(account_id, budget=Budget(1_000_000, BudgetAction.BLOCK))
    await world.settings[0].update(SettingsChange(account_id, wanted, ("budget",), ""), CUSTOMER)
    urgent = books.context.signals.urgent
    await spend(world, account_id)
    assert urgent.get_nowait() == account_id
    await books.settle()
    await spend(world, account_id)
    assert urgent.empty()  # it is blocked already
    world.clock.advance_us(31 * DAY_US)
    await spend(world, account_id)
    assert urgent.get_nowait() == account_id
