"""How much a board should send: the experiment `top-p`."""
