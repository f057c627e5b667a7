"""Sweeps, their jobs, and the pass of a job's images through its models."""
