"""What a run leaves behind for comparison: MLflow, or nothing."""

from src.tracking.tracker import Point, Run, Tracker, open_tracker
