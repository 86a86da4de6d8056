"""Export of a trained network as ONNX graphs, with the proof of each."""
