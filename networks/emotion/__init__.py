"""Networks that predict the emotions that pictures and captions evoke."""
