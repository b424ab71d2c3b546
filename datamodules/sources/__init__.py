"""Where very many pictures come from that have no annotations: folders, lists, shards, data sets."""
