"""Compact students: small networks of known families, where no compression of a model can fit."""

from __future__ import annotations

from edgecompress.model.compact.families import Student, Task, student_of, students

__all__ = ["Student", "Task", "student_of", "students"]
