"""The FlowStack services: router, quota, billing and vault, each its own process."""

import os

# gRPC's core writes lines of its own on standard error, such as for every connection that a peer ends in good order.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
