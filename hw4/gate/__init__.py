"""Did a commit make training slower or worse? Measured beside a frozen reference, by a gate that tests itself."""
