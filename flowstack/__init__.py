"""The FlowStack SDK."""
