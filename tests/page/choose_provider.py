# Cost optimization based on task complexity
def optimize_provider_for_cost(task: str):
    """Choose provider based on cost and task complexity"""

    complexity = analyze_task_complexity(task)

    if complexity == "simple":
        # Use cheapest option for simple tasks
        agent.set_provider("openai", byok={"api_key": "sk-..."})
        agent.set_model("gpt-3.5-turbo")  # ~$0.002 per 1K tokens

    elif complexity == "medium":
        # Use managed Bedrock for balanced cost/performance
        agent.set_provider("bedrock")  # Included in FlowStack pricing
        agent.set_model("claude-3-sonnet")

    else:  # complex
        # Use best model for complex tasks
        agent.set_provider("anthropic", byok={"api_key": "sk-ant-..."})
        agent.set_model("claude-3-opus")  # Most capable, higher cost
