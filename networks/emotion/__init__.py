"""Networks that predict the emotions that images and captions evoke."""
