"""A budget that refuses new sessions once it is spent, and a look at it before each call. It needs a paid plan."""

import os
import time

from flowstack import Agent, BudgetExceededError
from flowstack.billing import estimate_monthly_cost

WAIT_SECONDS = 30.0


def main() -> None:
    """Sets a budget with room, then one below what the plan already charged, and puts back the account's own."""
    with Agent("budget-guard", api_key=os.environ["FLOWSTACK_API_KEY"], provider="echo", model="echo-1") as agent:
        usage = agent.get_usage()
        print(f"Charged so far: ${usage.current_charges:.2f}, estimated: ${estimate_monthly_cost(usage):.2f}")
        if usage.current_charges <= 0:
            print("Nothing was charged, so no budget can be spent: this example needs a paid plan")
            return
        own = agent.budget.get()
        try:
            guard(agent, usage.current_charges)
        finally:
            if own is None:
                agent.budget.clear()
            else:
                agent.budget.set(own.max_monthly_cost, action=own.action)


def guard(agent: Agent, charged: float) -> None:
    """Chats under a budget that has room, and under one that is spent."""
    agent.budget.set(max_monthly_cost=charged + 100, action="block")
    if wait_until(agent, granted=True):
        print(f"With room: {agent.chat('within the budget')}")

    agent.budget.set(max_monthly_cost=charged / 2, action="block")
    wait_until(agent, granted=False)
    try:
        agent.chat("beyond the budget")
        print("Not refused yet: quota has not heard of the budget so far")
    except BudgetExceededError as error:
        print(f"Refused: {error}")


def wait_until(agent: Agent, granted: bool) -> bool:
    """Waits until sessions are granted, or refused; quota learns of a budget within a second. A look costs nothing."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        if agent.get_usage().can_make_requests == granted:
            return True
        time.sleep(0.1)
    return False


if __name__ == "__main__":
    main()
