"""Attacks made for target labels."""
