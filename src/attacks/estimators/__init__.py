"""Gradient estimators: the gradient of a step from gradients at several points."""
