"""Finds the models that a candidate is compared with or starts from."""
