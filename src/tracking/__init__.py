"""Tracking of runs for comparison: in MLflow, or not at all."""

from src.tracking.tracker import Point, Run, Tracker, open_tracker
