"""The vault's rules: what a document is, what filters mean, what a store does. Pure."""
