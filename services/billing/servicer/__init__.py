"""Billing over gRPC: convert in, ask the service, convert out. One module for each service."""
