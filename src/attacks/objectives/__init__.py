"""Objectives at a feature layer of the source."""
