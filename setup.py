"""Packages of the wheel: src/ is installed as `transferability`, and conf/ inside it.

An editable installation of a clone has its name `src`.
"""

import sys

from setuptools import find_packages, setup

name = "src" if "editable_wheel" in sys.argv else "transferability"
setup(
    packages=[name, *(f"{name}.{part}" for part in [*find_packages("src"), "assets", "conf"])],
    package_dir={name: "src", f"{name}.conf": "conf"},
    entry_points={"console_scripts": [f"transferability = {name}.__main__:main"]},
)
