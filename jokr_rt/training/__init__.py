"""PyTorch: the networks, their losses and the training loop. The runtime never imports this package."""
