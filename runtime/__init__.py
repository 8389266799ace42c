"""The composition root: settings, wiring, roles, the command line, embedded servers, logs and metrics."""
