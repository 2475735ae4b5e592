"""The edge list, the artefact between inference and evaluation. Knows nothing of torch."""
