"""Captioned images in tar archives: written by ``data shard``, read as a stream."""

from datamodules.shards.datamodule import ShardedCaptions

__all__ = ["ShardedCaptions"]
