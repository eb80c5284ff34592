"""What every service needs and none owns: settings, server bootstrap, interceptors, clock, errors, secrets."""
