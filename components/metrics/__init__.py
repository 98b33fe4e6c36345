"""Confusion matrix, scores, their TFMA metrics, and the gate that blesses a model."""
