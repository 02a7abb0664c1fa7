"""A page for one patient: planes, projections, the X-rays beside the re-projections, in one HTML file."""
