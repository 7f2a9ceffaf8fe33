"""The accuracy predictor: features, evidence, posterior."""
