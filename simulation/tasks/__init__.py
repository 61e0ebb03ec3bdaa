"""What boards learn: data sets as their publishers have them, and tasks drawn from them."""
