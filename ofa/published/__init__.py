"""Files of the published once-for-all code: checkpoints and network descriptions, read into types of ours."""
