"""Attacks on a layer's output."""
