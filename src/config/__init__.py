"""Typed settings, read from the composed config."""
