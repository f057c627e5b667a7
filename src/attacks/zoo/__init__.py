"""Published attacks, in the categories of the field: each beside the class that it is made of."""
