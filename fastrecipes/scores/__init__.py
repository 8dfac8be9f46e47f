"""Floor 3: what the predictions of many images come to."""
