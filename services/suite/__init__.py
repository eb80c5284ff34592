"""All four services on one machine: the supervisor that runs them, and the demonstration."""
