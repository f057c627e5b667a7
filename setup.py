"""Packages of the wheel: src/ is installed as `transferability`, and conf/ inside it.

An editable installation of a clone has both names for the same files.
"""

import sys

from setuptools import find_packages, setup

parts = [*find_packages("src"), "assets", "conf"]
names = ["transferability", *["src"] * ("editable_wheel" in sys.argv)]
setup(
    packages=[*names, *(f"{name}.{part}" for name in names for part in parts)],
    package_dir={name: "src" for name in names} | {f"{name}.conf": "conf" for name in names},
)
