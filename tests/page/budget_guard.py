@agent.tool
def budget_guard(max_monthly_cost: float) -> dict:
    """Prevent exceeding monthly budget"""

    usage = agent.get_usage()
    estimated_cost = estimate_monthly_cost(usage)

    if estimated_cost > max_monthly_cost:
        return {
            'error': 'Budget exceeded',
            'estimated_monthly_cost': estimated_cost,
            'budget_limit': max_monthly_cost,
            'recommendation': 'Consider optimizing usage or increasing budget'
        }

    return {
        'budget_status': 'within_limits',
        'estimated_monthly_cost': estimated_cost,
        'budget_limit': max_monthly_cost,
        'budget_remaining': max_monthly_cost - estimated_cost
    }
