"""The sections of the page: charts with captions."""
