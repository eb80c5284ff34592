"""The rules of billing, as pure functions and plain values: no I/O, no clock, no protobuf, no gRPC."""
