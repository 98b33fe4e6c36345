"""Drift monitoring: compares served requests or new data with the training data of the served model."""
