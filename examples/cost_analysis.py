"""What the sessions went to, and what would cost less."""

import os

from flowstack import Agent
from flowstack.billing import calculate_downgrade_savings, calculate_managed_savings, estimate_monthly_cost

agent = Agent("cost-analysis", api_key=os.environ["FLOWSTACK_API_KEY"], provider="echo", model="echo-1")


def main() -> None:
    """Chats a little, then reads the notes that the SDK keeps of each session's provider."""
    with agent:
        for number in range(3):
            agent.chat(f"Chat {number}")
        agent.flush()  # the notes are written off the caller's path

        usage = agent.get_usage()
        switches = agent.vault.query("provider_switches", sort=[("timestamp", -1)], limit=100)
        managed = len([one for one in switches if one.get("provider") == "bedrock"])
        byok = len(switches) - managed
        print(f"Managed sessions: {managed}, with keys of one's own: {byok}")
        print(f"Estimated cost of the month: ${estimate_monthly_cost(usage):.2f}")
        if byok > managed and usage.tier in ("starter", "professional"):
            saved = calculate_managed_savings(byok)
            # Unknown is not free: of a model without a known price nobody can say what it cost.
            print(
                "What going managed would save is not known: not every session has a known price"
                if saved is None
                else f"Going managed would save ${saved:.2f}"
            )
        if usage.usage_percentage < 50 and usage.tier != "free":
            print(f"A smaller plan would save ${calculate_downgrade_savings(usage.tier):.2f}")


if __name__ == "__main__":
    main()
