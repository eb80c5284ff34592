"""The services' own code in a world of virtual time, faults and crashes; every run is replayed by its seed."""
