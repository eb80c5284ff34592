"""Ten requests in one prompt are one session."""

import os

from flowstack import Agent
from flowstack.billing import parse_batch_response


def main() -> None:
    """Sends ten requests at once and takes the answers apart."""
    requests = [f"Translate the number {number} into French" for number in range(1, 11)]
    prompt = "Process these requests:\n" + "".join(f"{i}. {request}\n" for i, request in enumerate(requests, 1))
    with Agent("batching", api_key=os.environ["FLOWSTACK_API_KEY"], provider="echo", model="echo-1") as agent:
        before = agent.get_usage().sessions_used
        # The simulator says back what it was asked, numbers and all, as a model would number its answers.
        results = parse_batch_response(agent.chat(prompt), len(requests))
        for number, result in enumerate(results, 1):
            print(f"{number}: {result}")
        print(f"Sessions of this run: {agent.get_usage().sessions_used - before}")


if __name__ == "__main__":
    main()
