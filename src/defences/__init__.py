"""Defences: functions that change an image before the target classifies it."""

from src.defences.bit_depth import BitDepth
from src.defences.defended_source import AttackedDefence
from src.defences.defended_target import Defence, Defended, classify_behind
from src.defences.jpeg import Jpeg
from src.defences.median import Median
from src.defences.random_resize_pad import RandomResizePad
from src.defences.smoothing import Smoothing
