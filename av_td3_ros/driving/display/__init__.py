"""What people look at while it drives."""
