"""Tracking of runs in MLflow, or no tracking."""

from src.tracking.tracker import Point, Run, Tracker, open_tracker
