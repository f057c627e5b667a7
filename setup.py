"""Packages of the wheel: conf/, beside src/ in a checkout, is installed as src/conf/."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["src", "src.*"]), "src.assets", "src.conf"])
