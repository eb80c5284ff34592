"""Protobuf to domain and back. Nothing else of billing knows both."""
