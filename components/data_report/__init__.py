"""The HTML page of `segpipe data check --report`: counts, class distribution, sample pairs, duplicates and issues."""
