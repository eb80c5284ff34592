"""Bring your own key: the provider bills you, FlowStack counts the session and keeps nothing of the key."""

import os

from flowstack import Agent


def main() -> None:
    """Answers with OpenAI by a key of yours, then with the simulator; the key goes no further than its provider."""
    with Agent(
        "byok",
        api_key=os.environ["FLOWSTACK_API_KEY"],
        provider="openai",
        model="gpt-4o",
        byok={"api_key": os.environ["OPENAI_API_KEY"]},
    ) as agent:
        answer = agent.chat("Say hello")
        print(f"OpenAI: {answer}")

        agent.set_provider("echo")
        agent.set_model("echo-1")
        print(f"Echo: {agent.chat('Say hello')}")

        usage = agent.get_usage()
        print(f"Sessions with a key of one's own: {usage.byok_sessions}")


if __name__ == "__main__":
    main()
