"""The network as an ONNX graph: lowered from torch, and analysed for what may be removed together."""
