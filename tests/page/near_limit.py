# Check if approaching limits
usage = agent.get_usage()

if usage.is_near_limit:
    print("⚠️ Warning: You're using 80%+ of your monthly sessions")

if not usage.can_make_requests:
    print("❌ Session limit reached. Please upgrade your plan.")

# Get tier information
tier_info = agent.get_tier_info()
print(f"Current tier: {tier_info['current_tier']}")
print(f"Can use managed models: {tier_info['can_use_managed']}")
