"""The preset `auto`: settings for a data set, a machine and a time budget; `choose` is where it begins."""
