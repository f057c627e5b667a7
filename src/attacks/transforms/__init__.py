"""Input transformations, one file each."""
