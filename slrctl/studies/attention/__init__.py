"""What the hands look at: the attention of a trained model on clips, and whether to believe it."""
