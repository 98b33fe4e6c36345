"""The networks: one small file an architecture, and the registry that builds them by name."""
