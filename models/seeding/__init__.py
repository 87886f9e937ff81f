"""Weights that a seed draws again, bit for bit, on any machine (design: seeded initialisation).

In: a seed, a parameter's name, an initialiser. Out: float32 tensors and the records that rebuild them. Nothing here but
``initialise`` and ``philox_torch`` needs a framework.
"""
