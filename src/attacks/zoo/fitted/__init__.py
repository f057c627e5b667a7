"""Attacks that are fitted on training images before they attack others."""
