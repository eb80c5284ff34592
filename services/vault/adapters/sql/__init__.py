"""The vault's store in SQL."""
