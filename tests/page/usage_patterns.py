# Track usage over time
@agent.tool
def track_usage_patterns() -> dict:
    """Track and analyze usage patterns"""

    usage = agent.get_usage()

    # Store usage snapshot
    agent.vault.store('usage_history', {
        'timestamp': datetime.now().isoformat(),
        'sessions_used': usage.sessions_used,
        'sessions_limit': usage.sessions_limit,
        'usage_percentage': usage.usage_percentage,
        'tier': usage.tier
    })

    # Get usage history for analysis
    history = agent.vault.query('usage_history', 
        sort=[('timestamp', -1)], 
        limit=30  # Last 30 data points
    )

    # Calculate trends
    if len(history) >= 2:
        recent_usage = history[0]['usage_percentage']
        previous_usage = history[1]['usage_percentage']
        trend = recent_usage - previous_usage
    else:
        trend = 0

    return {
        'current_usage': usage.usage_percentage,
        'trend': trend,
        'sessions_remaining': usage.sessions_remaining,
        'days_left_in_period': calculate_days_remaining(),
        'projected_usage': project_monthly_usage(history)
    }
