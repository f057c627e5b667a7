"""The jobs of one command: before, during and after them."""
