@agent.tool
def setup_usage_alerts(alert_thresholds: list = [75, 90, 95]) -> dict:
    """Set up automated usage alerts"""

    usage = agent.get_usage()

    alerts_triggered = []

    for threshold in alert_thresholds:
        if usage.usage_percentage >= threshold:
            alert = {
                'threshold': threshold,
                'current_usage': usage.usage_percentage,
                'sessions_remaining': usage.sessions_remaining,
                'message': f'Usage alert: {usage.usage_percentage}% of monthly limit reached'
            }
            alerts_triggered.append(alert)

            # Send alert (integrate with your notification system)
            send_usage_alert(alert)

    return {
        'current_usage': usage.usage_percentage,
        'alerts_triggered': alerts_triggered,
        'next_reset': get_next_billing_cycle_date()
    }
