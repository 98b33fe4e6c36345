"""The TFX pipeline: its configuration, its wiring, its runners and the command line."""
