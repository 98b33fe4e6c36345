"""Mask R-CNN on a feature pyramid (He, Gkioxari, Dollár and Girshick 2017, arXiv 1703.06870), one file per part.

Boxes are (y_min, x_min, y_max, x_max) in pixels of the network's input, the maximum exclusive. Boxes without area pad
lists to their static length. `things` are the classes with instances. Labels are 0 for background and 1 + the index in
things.
"""
