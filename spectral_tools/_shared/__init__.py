"""What every room needs: arguments, outcomes, statistics, and doors to libraries."""
