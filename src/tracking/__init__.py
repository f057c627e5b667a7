"""Publish runs of finished jobs to MLflow, to another store, or to none."""

from .tracker import STARTED, Point, Tracker, open_tracker
