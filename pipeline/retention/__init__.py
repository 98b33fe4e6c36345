"""`segpipe gc`: frees disk space by removing what no kept run needs."""
