"""Captioning, labelling and tagging very many pictures: jobs that can be divided, killed and called again."""
