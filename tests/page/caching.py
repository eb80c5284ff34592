@agent.tool
def cached_expensive_operation(query: str) -> dict:
    """Cache expensive operations to reduce costs"""

    # Generate cache key
    cache_key = f"expensive_op_{hash(query)}"

    # Check cache first
    cached_result = agent.vault.retrieve('cache', key=cache_key)

    if cached_result and not is_expired(cached_result):
        return {
            "result": cached_result['data'],
            "cached": True,
            "cost_saved": True
        }

    # Perform expensive operation
    result = expensive_operation(query)

    # Cache result for 1 hour
    agent.vault.store('cache', {
        'data': result,
        'expires_at': (datetime.now() + timedelta(hours=1)).isoformat()
    }, key=cache_key)

    return {
        "result": result,
        "cached": False,
        "cost_saved": False
    }
