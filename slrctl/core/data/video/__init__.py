"""From videos of signing to clips of landmarks, by MediaPipe Holistic."""
