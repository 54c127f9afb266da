"""Files: paths and buckets, workdirs, weights, tokens."""
