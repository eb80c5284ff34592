"""Usage alerts into a Slack channel: a threshold that FlowStack watches, and an alert of your own."""

import os
import time

from flowstack import Agent
from flowstack.billing import send_slack_alert

SESSIONS_MAX = 60
WAIT_SECONDS = 30.0


def main() -> None:
    """Sends alerts to the webhook that Slack gave you, and puts back the account's own settings."""
    with Agent("slack-alerts", api_key=os.environ["FLOWSTACK_API_KEY"], provider="echo", model="echo-1") as agent:
        own = agent.alerts.settings()
        webhook = agent.alerts.create_webhook(os.environ["SLACK_WEBHOOK_URL"], name="Slack", format="slack")
        try:
            agent.alerts.send_to([webhook.webhook_id])
            crossed = cross_a_threshold(agent)
            send_slack_alert("By hand: all is well")
            wait_until_delivered(agent, webhook.webhook_id, count=2 if crossed else 1)
        finally:
            agent.alerts.set_thresholds(own.thresholds)
            agent.alerts.send_to(own.webhook_ids)
            agent.alerts.delete_webhook(webhook.webhook_id)


def cross_a_threshold(agent: Agent) -> bool:
    """Sets the threshold to the next whole percent, and uses enough to cross it, where that is not far."""
    usage = agent.get_usage()
    threshold = int(usage.usage_percentage) + 1
    missing = threshold * usage.sessions_limit / 100 - usage.sessions_used
    if threshold > 100 or missing > SESSIONS_MAX:
        print(f"The next percent is {missing:.0f} sessions away or beyond the limit: the usage alert is left out")
        return False
    agent.alerts.set_thresholds([threshold])
    while usage.usage_percentage < threshold and usage.can_make_requests:
        agent.chat("one more")
        usage = agent.get_usage()
    print(f"Usage is at {usage.usage_percentage:.0f} %: the alert is on its way")
    return usage.usage_percentage >= threshold


def wait_until_delivered(agent: Agent, webhook_id: str, count: int) -> None:
    """Waits for `count` alerts to arrive: what was not delivered when the webhook is deleted never is."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        states = [alert.deliveries.get(webhook_id) for alert in agent.alerts.list(limit=10)]
        if states.count("delivered") >= count:
            print(f"Delivered: {count}")
            return
        time.sleep(0.2)
    print("Not delivered yet: Slack does not answer")


if __name__ == "__main__":
    main()
