"""Attacks from other libraries."""
