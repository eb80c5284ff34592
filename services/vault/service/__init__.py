"""The vault's use cases."""
