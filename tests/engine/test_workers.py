"""Several processes that train together come to what one process comes to."""
