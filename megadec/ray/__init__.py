"""The one door to Ray: training on a cluster's workers, and commands sent to a cluster's job server."""
