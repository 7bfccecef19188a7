"""A plan as pages for those who decide: charter, architecture, schedule, cost; Markdown with two pictures."""
