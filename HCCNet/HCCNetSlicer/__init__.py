"""What the HCCNet module does below its window: exams, worker, results, dependencies."""
