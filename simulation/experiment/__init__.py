"""One whole run: phones, plan, training, release, scores, lender, figures, bundle."""
