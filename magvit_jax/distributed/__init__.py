"""Several processes as one run: finding the cluster, joining it, agreeing."""
