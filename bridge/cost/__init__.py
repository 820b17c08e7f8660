"""What pods cost at most, and what they have cost. Pure; money is exact (`Decimal`, US dollars)."""
