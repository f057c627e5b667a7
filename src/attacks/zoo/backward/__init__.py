"""Attacks that change the source's backward or forward pass: backward rules."""
