# Managed Bedrock - included in session pricing
agent = Agent(
    name="managed-agent",
    api_key="fs_...",
    provider="bedrock",  # Managed by FlowStack
    model="claude-3-sonnet"
)
