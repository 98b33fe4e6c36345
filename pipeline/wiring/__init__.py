"""The pipeline of components, and the hashes that their cache keys include."""
