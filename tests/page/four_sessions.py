# Session 1
agent.chat("Hello")  

# Session 2 (new API call)
agent.chat("Can you help me?")

# Session 3 (new API call)
agent.chat("Thanks!")

# Session 4 (new API call)
agent.chat("New question")

# Result: 4 API calls = 4 sessions total
