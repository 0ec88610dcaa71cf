"""What the weights alone tell: lengths, neighbours, logit lens, map."""
