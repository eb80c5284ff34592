# This counts as 1 session
response = agent.chat("Hello, help me with a task")

# Even if the agent calls multiple tools
@agent.tool  
def tool1(): pass

@agent.tool
def tool2(): pass

# And accesses DataVault multiple times
agent.vault.store('data', {...})
agent.vault.retrieve('data', key='...')
