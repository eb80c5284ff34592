"""Protobuf to domain and back. Nothing else of quota knows both."""
