"""Published attacks in the categories of the field, each next to the class it is made of."""
