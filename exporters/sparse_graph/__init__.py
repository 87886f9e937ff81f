"""Rewriting an ONNX graph so that layers with sparse weights run on the native operators (docs/operators.md)."""
