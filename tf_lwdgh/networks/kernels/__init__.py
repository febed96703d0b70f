"""Operations with hand-derived derivatives, one block a file."""
