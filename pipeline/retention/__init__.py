"""Frees the disk of what no kept run needs: `segpipe gc`."""
