"""The FlowStack services: router, quota, billing and vault, each its own process."""
