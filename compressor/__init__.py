"""The compressor: a network, data and a recipe in, a sparse checkpoint out."""
