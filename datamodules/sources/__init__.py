"""Where very many pictures come from that have no annotations: folders, lists of files, Parquet and tar shards."""
