"""Helpers of every package: whole files, checks, processes, interrupts."""
