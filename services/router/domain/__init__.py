"""The router's rules and vocabulary: no I/O, no clock, no protobuf, no gRPC."""
