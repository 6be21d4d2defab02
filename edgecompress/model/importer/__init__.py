"""Float ONNX to torch.fx, one small file per family of operators."""
