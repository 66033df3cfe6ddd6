"""What every subject uses: files that appear whole, digests, the cache policy, the tool runner, the process pool."""
