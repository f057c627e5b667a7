"""The sections of the page: charts with captions that hold the numbers."""
