"""Attacks that combine the members of an ensemble."""
