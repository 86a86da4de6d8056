"""Training, and everything that imports TensorFlow."""
