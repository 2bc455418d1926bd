"""What the Slicer module is made of; knows nothing of torch."""
