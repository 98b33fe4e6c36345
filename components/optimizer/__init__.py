"""Builds faster variants of a trained model, compares them with it, and passes on the one that was asked for."""
