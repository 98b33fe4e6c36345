"""Faster variants of a trained model: built, compared with it, and the first that loses little passed on."""
