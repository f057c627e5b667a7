"""Publish runs of finished jobs to MLflow, to another store, or to none."""

from .tracker import Point, Tracker, open_tracker
