"""What the router reaches other services with."""
