try:
    response = agent.chat("Hello")
except QuotaExceededError as e:
    print(f"Quota exceeded: {e}")
    print(f"Current usage: {e.details['current_usage']}")
    print(f"Limit: {e.details['limit']}")
    print("Please upgrade your plan or wait for reset.")
