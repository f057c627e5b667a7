"""Published attacks, each next to the class it is made of.

The first word of a file's name is the attacks' category.
"""
