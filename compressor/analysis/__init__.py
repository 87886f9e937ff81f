"""What finished runs have in common and what sets them apart: masks, dead weights, stability, predictions, costs.

In: RUN folders, with the states of their rounds where these were kept. Out: plain numbers. The measures are those of
On Iterative Neural Network Pruning, Reinitialization, and the Similarity of Masks, 2020; each is a pure function.
"""
