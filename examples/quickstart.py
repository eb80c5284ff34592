"""Three calls, three sessions; the same answer once as a whole and once as it comes."""

import os

from flowstack import Agent


def main() -> None:
    """Talks to the simulator `echo`, which needs no provider's key."""
    with Agent("quickstart", api_key=os.environ["FLOWSTACK_API_KEY"], provider="echo", model="echo-1") as agent:
        before = agent.get_usage().sessions_used

        answer = agent.chat("Hello, FlowStack")
        print(f"Answer: {answer}")
        print(f"Session: {answer.session.session_id}, tokens out: {answer.usage.output_tokens}")

        agent.chat("No memory: this call knows nothing of the one before")

        print("Streamed: ", end="")
        for text in agent.stream("One word at a time").text:
            print(text, end="", flush=True)
        print()

        usage = agent.get_usage()
        print(f"Sessions of this run: {usage.sessions_used - before}")
        print(f"Left in this period: {usage.sessions_remaining} of {usage.sessions_limit}")


if __name__ == "__main__":
    main()
