"""Tracking of runs in MLflow, in another store, or no tracking."""

from src.tracking.tracker import Point, Run, Tracker, TrackingStore, open_tracker
