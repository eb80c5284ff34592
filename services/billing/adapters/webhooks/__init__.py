"""Webhooks on the wire: addresses that are checked, requests that are bounded, signatures, and sealed secrets."""
