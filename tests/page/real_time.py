# Real-time usage monitoring
usage = agent.get_usage()
print(f"Sessions used today: {usage.sessions_used}")
print(f"Estimated monthly cost: ${estimate_monthly_cost(usage)}")

# Set up usage alerts
if usage.usage_percentage > 80:
    send_slack_alert(f"⚠️ Usage at {usage.usage_percentage}%")
