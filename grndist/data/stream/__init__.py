"""From a view to batches: what a step sees (`plan`), decoded ahead (`windows`), made dense (`loader`, `kernels`)."""
