"""The models and the training recipe that TFX's Trainer runs."""
