"""Model files: reading, writing, converting, finding and fetching them."""
