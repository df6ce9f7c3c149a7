"""From nodes to tensor operations, by families of operators."""
