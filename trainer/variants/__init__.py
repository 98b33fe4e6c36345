"""Builds faster variants of a trained model, compares them with it and selects one."""
