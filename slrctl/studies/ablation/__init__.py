"""`slrctl ablate`: variants against a baseline, over paired seeds."""
