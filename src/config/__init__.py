"""From the composed config to what a job is."""
