"""The doctor: measures a run, a model or a set of pictures, and names causes."""

from calotype.inspection.doctor.diagnose import diagnose
from calotype.inspection.doctor.finding import Diagnosis, Finding

__all__ = ["Diagnosis", "Finding", "diagnose"]
