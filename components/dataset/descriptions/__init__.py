"""Built-in data set descriptions, one YAML file each; a package so that installing segpipe takes them along."""
