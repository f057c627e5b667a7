"""Tracking of runs in MLflow, in another store, or no tracking."""

from src.tracking.tracker import UNTRACKED, Point, Run, Tracker, TrackingStore, open_tracker
