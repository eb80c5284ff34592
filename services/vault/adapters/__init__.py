"""The vault's store, and its client of billing."""
