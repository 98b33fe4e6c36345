"""The command line `segpipe`: a file for each group of commands. Commands import heavy packages when they run."""
