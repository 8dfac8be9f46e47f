"""Networks: which one is meant, what blocks it is made of, and the weights it starts from."""
