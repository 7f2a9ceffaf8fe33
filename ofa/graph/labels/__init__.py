"""Labels of the tensors of a captured graph: which indices belong together, by a rule for each operator."""
