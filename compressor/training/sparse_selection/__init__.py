"""Sparse selection: weights stay as they were drawn, and training finds which of them compute, or with which sign."""
