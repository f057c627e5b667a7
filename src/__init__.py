"""Measure how adversarial examples transfer from the model they were made on to other models."""
