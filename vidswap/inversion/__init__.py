"""Inversion: from an aligned face to the latent that makes it."""

from vidswap.inversion.fit import FitResult, fit_pivot
from vidswap.inversion.tuning import TuningReport, drift, tune_generator
from vidswap.inversion.warm import Inverter, WarmState

__all__ = ["FitResult", "Inverter", "TuningReport", "WarmState", "drift", "fit_pivot", "tune_generator"]
