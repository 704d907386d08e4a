"""How fast the product is: one figure each for what people wait for, to be laid beside another version's."""
