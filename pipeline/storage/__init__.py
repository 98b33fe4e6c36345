"""Where runs are kept: the work directory and the metadata store."""
