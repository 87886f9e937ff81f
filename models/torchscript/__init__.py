"""TorchScript files as models: read, converted to an ordinary module, and refused with the reason where that fails."""
