"""How good is a trained model? Measured against puppets whose truth is known, or on two real clips."""
