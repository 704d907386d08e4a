"""What people write, read strictly: files, quantities with units and sources, catalogues."""
