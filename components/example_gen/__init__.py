"""ExampleGen for folders of images and masks."""
