"""What every layer uses: files, hashes, safe loads, devices."""
