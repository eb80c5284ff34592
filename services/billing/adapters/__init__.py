"""What billing is connected to: its database, the catalogue file and the quota service."""
