"""Tracking of runs in MLflow, in another store, or no tracking."""

from .tracker import UNTRACKED, Point, Run, Tracker, TrackingStore, open_tracker
