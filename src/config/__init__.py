"""Typed settings from the composed config."""
