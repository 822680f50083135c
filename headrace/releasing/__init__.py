"""A release from its gates to its decision, across the stages: measure, start, look at, judge, plan."""
