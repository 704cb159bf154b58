"""Inversion: from an aligned face to the latent that makes it."""

from vidswap.inversion.curvature import Curvature, measure_curvature
from vidswap.inversion.fit import FitResult, fit_pivot
from vidswap.inversion.tuning import TuningReport, drift, tune_generator
from vidswap.inversion.warm import Correction, Hidden, Inverter, Maps, WarmState

__all__ = [
    "Correction", "Curvature", "FitResult", "Hidden", "Inverter", "Maps", "TuningReport", "WarmState",
    "drift", "fit_pivot", "measure_curvature", "tune_generator",
]  # fmt: skip
