"""A tool that the model calls, and the vault that the tool keeps its notes in: all of it one session."""

import os
from datetime import UTC, datetime

from flowstack import Agent

agent = Agent("tools", api_key=os.environ["FLOWSTACK_API_KEY"], provider="echo", model="echo-1")


@agent.tool
def note_weather(city: str = "Lisbon", celsius: int = 21) -> dict[str, object]:
    """Keeps what the weather is.

    Args:
        city: Where.
        celsius: How warm it is there.
    """
    agent.vault.store("weather", {"city": city, "celsius": celsius, "noted": datetime.now(UTC).isoformat()}, key=city)
    return {"noted": city, "known_cities": len(agent.vault.query("weather"))}


def main() -> None:
    """Lets the model use the tool. The label makes the simulator call it; a real model decides by itself."""
    with agent:
        before = agent.get_usage().sessions_used
        answer = agent.chat("How is Lisbon?", labels={"echo.tool": "note_weather"})
        print(f"Answer: {answer}")
        noted = agent.vault.retrieve("weather", key="Lisbon")
        print(f"In the vault: {noted['celsius'] if noted else 'no'} degrees")
        print(f"Sessions of this run: {agent.get_usage().sessions_used - before}")


if __name__ == "__main__":
    main()
