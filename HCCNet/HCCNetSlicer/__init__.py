"""What the Slicer module is made of; nothing here imports torch, and importing it costs nothing."""
