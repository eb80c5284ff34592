"""The real services killed with SIGKILL at named places, under load, again and again."""
