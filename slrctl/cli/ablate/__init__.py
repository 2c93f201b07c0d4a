"""`slrctl ablate`: what the command takes, says beforehand, runs and leaves behind."""
