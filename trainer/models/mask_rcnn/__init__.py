"""Mask R-CNN on a feature pyramid (He, Gkioxari, Dollár and Girshick 2017, arXiv 1703.06870), a file a part.

Boxes are (y_min, x_min, y_max, x_max) in pixels of the network's input, the maximum exclusive. A box without area
fills up a list that is shorter than its static length. Labels are 0 for background and 1 + the position in things.
"""
