"""Defences: functions that change an image before the target classifies it."""

from .defended import AttackedDefence, Defence, Defended, classify_behind
from .feature_squeezing import BitDepth, Median, soft_round
from .jpeg import Jpeg
from .randomised import RandomResizePad, Smoothing
