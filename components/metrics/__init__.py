"""Confusion matrix, scores, their TFMA metrics, and the gate that decides what is blessed."""
