"""The billing service: accounts, API keys, subscriptions, the ledger of sessions and what they cost."""
