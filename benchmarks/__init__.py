"""The program measured: beside torchattacks, beside bare gradients, and on a GPU.

This file imports nothing: the processes that are timed start in this package.
"""
