"""Making our own weights from the generator's own samples: no data set."""
