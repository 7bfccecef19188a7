"""Pipeline parallel: layers cut into stages, a batch into micro-batches, and a schedule that says who does what when."""
