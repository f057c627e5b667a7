"""Helpers for all packages: atomic files, checks, processes, interrupts."""
