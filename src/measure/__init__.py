"""Measurements that a job makes of each batch, one file per table."""

from ..artifacts.tables import EPS_255, FLOAT, INDEX, INTEGER, LABEL, SINGLE, TEXT, column
from ..utils.model_names import ModelRef
from .prediction_rows import image_rows
from .protocol import EvaluatedBatch, Job, Measurement
