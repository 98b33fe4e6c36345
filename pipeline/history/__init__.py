"""What ran: runs and what belongs to them, their figures, what is served of them."""
