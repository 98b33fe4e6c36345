"""The HTML page of `segpipe data check --report`: counts, class shares, sample pairs, duplicates and issues."""
