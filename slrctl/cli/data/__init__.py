"""`slrctl data`: a command on clips in each module."""
