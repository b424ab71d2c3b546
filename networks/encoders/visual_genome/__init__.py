"""Faster R-CNN of Visual Genome: 36 boxes of 2,048 numbers, what VisualBERT and LXMERT read."""
