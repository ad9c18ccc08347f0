"""`quanta search`: which layouts there are, what each costs by closed formulas, and the Pareto front of them."""
