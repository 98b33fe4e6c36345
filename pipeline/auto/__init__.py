"""The preset `auto`: chooses settings for a data set, a machine and a time budget. `choose` is the entry point."""
