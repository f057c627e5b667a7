"""Where adversarial images come from: an attack on a source, or files."""
