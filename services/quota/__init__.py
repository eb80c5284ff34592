"""The quota service: reserves, commits and releases sessions exactly."""
