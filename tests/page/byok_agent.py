# BYOK - you pay AI provider directly
agent = Agent(
    name="byok-agent",
    api_key="fs_...",
    provider="openai",
    model="gpt-4o",
    byok={"api_key": "sk-your-openai-key"}  # Your key
)
