"""The command `aqua-registry`. Results go to stdout, logs and errors to stderr."""
