"""The smaller torch module that is left when channels, neurons or heads are taken out of a network."""
