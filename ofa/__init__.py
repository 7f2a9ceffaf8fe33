"""Once-for-all supernets: elastic operators, search spaces, training, extraction and export."""
