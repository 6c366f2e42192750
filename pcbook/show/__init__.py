"""What a reader sees: figures that work without a kernel."""
