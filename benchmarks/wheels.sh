#!/bin/sh
# Make a folder of wheels for `python3 -m benchmarks gpu` on a machine without a package index.
# That machine has Python PYTHON on x86-64 Linux, and torch, torchvision, torchmetrics,
# pytorch-lightning, timm, pandas, pyarrow, rich, filelock and pytest.
#     sh benchmarks/wheels.sh FOLDER PYTHON     for example: sh benchmarks/wheels.sh wheels 3.12
# There:
#     python3 -m pip install --no-index --no-deps --target site FOLDER/*.whl
#     PYTHONPATH=site python3 -m benchmarks gpu
set -eu
python3 -m pip wheel --quiet --no-deps --wheel-dir "$1" --constraint constraints.txt \
    antlr4-python3-runtime # has a source distribution alone
python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$1" --python-version "$2" \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 --constraint constraints.txt \
    altair annotated-types hydra-core jsonschema jsonschema-specifications omegaconf \
    pydantic pydantic-core referencing rpds-py typing-inspection
ls "$1"
