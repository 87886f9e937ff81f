"""Unpacking by the graph: what ``onnx-unpack`` writes in place of a dense initializer.

Each module holds one idea three times: how it is stored, the ONNX nodes that undo it, and the same rules in numpy.
"""
