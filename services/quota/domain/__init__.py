"""The state machine of sessions, as pure functions: no I/O, no clock, no protobuf, no gRPC."""
