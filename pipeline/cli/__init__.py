"""The command `segpipe`, one file a group of commands; heavy packages are imported where they are used."""
