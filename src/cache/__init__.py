"""Cache of rows, addressed by the content that decides them; safe to delete."""
