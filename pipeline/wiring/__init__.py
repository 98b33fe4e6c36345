"""The pipeline of components, and what its cache keys depend on."""
