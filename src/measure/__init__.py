"""What a job measures of each batch, table by table."""
