"""Where a network and its data come from: zoo names, user factories, ONNX files; seeded weights; lowering to ONNX.

The first room: it imports nothing from the rooms that follow, and importing it loads no framework.
"""
