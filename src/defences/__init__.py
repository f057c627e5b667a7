"""Defences: functions that change an image before the target classifies it."""

from src.defences.defended import AttackedDefence, Defence, Defended, classify_behind
from src.defences.feature_squeezing import BitDepth, Median, soft_round
from src.defences.jpeg import Jpeg
from src.defences.randomised import RandomResizePad, Smoothing
