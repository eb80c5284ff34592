"""What was answered once is kept in the vault for an hour and costs no second session."""

import hashlib
import os
from datetime import UTC, datetime, timedelta

from flowstack import Agent
from flowstack.billing import is_expired

agent = Agent("caching", api_key=os.environ["FLOWSTACK_API_KEY"], provider="echo", model="echo-1")


def cached_chat(question: str) -> tuple[str, bool]:
    """The answer, and whether it came from the cache."""
    key = hashlib.sha256(question.encode()).hexdigest()
    cached = agent.vault.retrieve("cache", key=key)
    if cached and not is_expired(cached):
        return cached["data"], True
    answer = str(agent.chat(question))
    expires_at = datetime.now(UTC) + timedelta(hours=1)
    agent.vault.store("cache", {"data": answer, "expires_at": expires_at.isoformat()}, key=key)
    return answer, False


def main() -> None:
    """Asks the same twice."""
    with agent:
        before = agent.get_usage().sessions_used
        for _ in range(2):
            answer, cached = cached_chat("What is a session?")
            print(f"{'cached' if cached else 'asked'}: {answer}")
        print(f"Sessions of this run: {agent.get_usage().sessions_used - before}")


if __name__ == "__main__":
    main()
