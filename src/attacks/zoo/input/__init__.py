"""Attacks that take gradients of transformed images."""
