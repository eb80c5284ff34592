"""Usage alerts into a Slack channel: thresholds that FlowStack watches, and one of your own."""

import os

from flowstack import Agent
from flowstack.billing import send_slack_alert


def main() -> None:
    """Sets thresholds and the webhook that Slack gave you, then uses enough to cross one."""
    with Agent("slack-alerts", api_key=os.environ["FLOWSTACK_API_KEY"], provider="echo", model="echo-1") as agent:
        agent.alerts.set_thresholds([10, 75, 90, 95])
        webhook = agent.alerts.create_webhook(os.environ["SLACK_WEBHOOK_URL"], name="Slack", format="slack")
        agent.alerts.send_to([webhook.webhook_id])

        usage = agent.get_usage()
        while usage.usage_percentage < 10:
            agent.chat("one more")
            usage = agent.get_usage()
        print(f"Usage is at {usage.usage_percentage:.0f} %: the alert is on its way")

        send_slack_alert(f"Usage at {usage.usage_percentage:.0f} %, by hand")


if __name__ == "__main__":
    main()
