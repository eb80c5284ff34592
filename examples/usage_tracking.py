"""Where the account stands, how it got there, and where the month will end."""

import os
from datetime import UTC, datetime

from flowstack import Agent
from flowstack.billing import calculate_days_remaining, estimate_monthly_cost, project_monthly_usage

agent = Agent("usage-tracking", api_key=os.environ["FLOWSTACK_API_KEY"], provider="echo", model="echo-1")


def main() -> None:
    """Keeps a snapshot of the usage in the vault after each of three chats, and looks at the trend."""
    with agent:
        for number in range(3):
            agent.chat(f"Chat {number}")
            usage = agent.get_usage()
            agent.vault.store(
                "usage_history",
                {
                    "timestamp": datetime.now(UTC).isoformat(),
                    "sessions_used": usage.sessions_used,
                    "sessions_limit": usage.sessions_limit,
                    "usage_percentage": usage.usage_percentage,
                    "tier": usage.tier,
                },
            )
        history = agent.vault.query("usage_history", sort=[("timestamp", -1)], limit=30)
        trend = history[0]["usage_percentage"] - history[1]["usage_percentage"]
        print(f"Used: {usage.sessions_used} of {usage.sessions_limit} ({usage.usage_percentage:.1f} %)")
        print(f"Trend: {trend:+.2f} points a snapshot")
        print(f"Days left: {calculate_days_remaining()}")
        print(f"Projected sessions: {project_monthly_usage(history)}")
        print(f"Estimated cost of the month: ${estimate_monthly_cost(usage):.2f}")


if __name__ == "__main__":
    main()
