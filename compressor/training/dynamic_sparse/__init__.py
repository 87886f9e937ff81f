"""Dynamic sparse training: one file for each rule by which connections leave and come in while weights are trained."""
