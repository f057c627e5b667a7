"""Surrogates: changed forward or backward passes of a source."""
