"""The router: streams completions from providers, each under a reservation of one session."""
