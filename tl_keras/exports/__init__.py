"""Exports: the model of a run for use without tl_keras, checked in a fresh process before it is written."""

from tl_keras.exports.checks import ExportError
from tl_keras.exports.export import export_run
from tl_keras.exports.formats import FORMATS, QUANTIZATIONS
from tl_keras.exports.serving import serving_model

__all__ = ["FORMATS", "QUANTIZATIONS", "ExportError", "export_run", "serving_model"]
