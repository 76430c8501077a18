"""Field chips: for every chip its masks, and its imagery at planting and at harvest."""
