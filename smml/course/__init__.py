"""COURSE: run notebooks, judge exercises, show tables, build the site."""

from smml.course.checking import check

__all__ = ["check"]
