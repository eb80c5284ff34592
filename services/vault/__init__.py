"""The vault service: documents of agents."""
