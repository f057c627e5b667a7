"""Attacks that change how the gradient is taken and followed."""
