"""Data sets of images and masks: what their folders mean, which pairs they hold and what is wrong with them."""
