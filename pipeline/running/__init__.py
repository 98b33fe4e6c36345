"""What runs a pipeline, and what it tells people while and after it does."""
