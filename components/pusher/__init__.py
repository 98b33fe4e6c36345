"""Publishes a blessed model atomically where it is served from.

In this package, `base_directory` is the directory of a model's versions, local or on an object store.
"""
