"""`slrctl inspect-attention`: the attention of a trained model, and its faithfulness."""
