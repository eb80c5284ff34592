from flowstack import Agent

agent = Agent("my-agent", api_key="fs_...")

# Get current usage
usage = agent.get_usage()

print(f"Sessions used: {usage.sessions_used}")
print(f"Sessions limit: {usage.sessions_limit}")
print(f"Sessions remaining: {usage.sessions_remaining}")
print(f"Usage percentage: {usage.usage_percentage:.1f}%")
print(f"Current charges: ${usage.current_charges:.2f}")
