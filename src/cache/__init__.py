"""Rows found by the content that decides them; safe to delete."""
