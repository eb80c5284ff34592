@agent.tool
def cost_analysis() -> dict:
    """Analyze costs and suggest optimizations"""

    # Get usage data
    usage = agent.get_usage()

    # Analyze provider usage patterns
    provider_usage = agent.vault.query('provider_switches', 
        sort=[('timestamp', -1)], 
        limit=100
    )

    # Calculate cost breakdown
    managed_sessions = len([p for p in provider_usage if p.get('provider') == 'bedrock'])
    byok_sessions = len(provider_usage) - managed_sessions

    recommendations = []

    # Recommend based on usage patterns
    if byok_sessions > managed_sessions and usage.tier in ['starter', 'professional']:
        recommendations.append({
            'type': 'cost_reduction',
            'message': 'You use BYOK frequently. Consider Professional plan for better managed pricing.',
            'potential_savings': calculate_managed_savings(byok_sessions)
        })

    if usage.usage_percentage < 50 and usage.tier != 'free':
        recommendations.append({
            'type': 'plan_optimization',
            'message': 'You use less than 50% of your sessions. Consider downgrading.',
            'potential_savings': calculate_downgrade_savings(usage.tier)
        })

    return {
        'current_tier': usage.tier,
        'usage_percentage': usage.usage_percentage,
        'managed_sessions': managed_sessions,
        'byok_sessions': byok_sessions,
        'recommendations': recommendations,
        'monthly_cost_estimate': estimate_monthly_cost(usage)
    }
