"""What is compared: one module for each library, imported only in that library's own environment."""
