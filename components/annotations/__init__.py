"""Annotations of images: regions, and COCO's JSON, which data sets can hold and the importers read."""
