"""A budget that refuses new sessions once it is spent, and a look at it before each call."""

import os

from flowstack import Agent, BudgetExceededError
from flowstack.billing import estimate_monthly_cost


def main() -> None:
    """Sets a budget below what the plan already charged: BLOCK refuses from the next session on."""
    with Agent("budget-guard", api_key=os.environ["FLOWSTACK_API_KEY"], provider="echo", model="echo-1") as agent:
        usage = agent.get_usage()
        print(f"Charged so far: ${usage.current_charges:.2f}, estimated: ${estimate_monthly_cost(usage):.2f}")

        agent.budget.set(max_monthly_cost=usage.current_charges + 100, action="block")
        print(f"With room: {agent.chat('within the budget')}")

        agent.budget.set(max_monthly_cost=usage.current_charges / 2, action="block")
        try:
            while True:  # quota learns of it within a second
                agent.chat("beyond the budget")
        except BudgetExceededError as error:
            print(f"Refused: {error}")
        finally:
            agent.budget.clear()


if __name__ == "__main__":
    main()
