"""Measure how adversarial examples transfer from their source model to others."""
