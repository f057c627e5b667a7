"""Measurements that a job makes of each batch, one file per table."""

from src.artifacts.tables import EPS_255, FLOAT, INDEX, INTEGER, LABEL, SINGLE, TEXT, column
from src.measure.prediction_rows import image_rows
from src.measure.protocol import EvaluatedBatch, Job, Measurement, RowRequest
from src.utils.model_names import ModelRef
