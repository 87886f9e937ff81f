"""Training: the loop, what moves a mask while it runs, the checkpoint sequence, and going on after a kill."""
