"""The report of a run: what it shows, how it is drawn and the pipeline component that writes it."""
