"""Three mentors and the choice of a method: advice that is computed from a team's own rows, every sentence with its
number, its interval and the command that shows it."""

from headrace.advising.business import advise_business
from headrace.advising.domain import advise_domain
from headrace.advising.method import advise_method
from headrace.advising.technical import advise_technical

__all__ = ["advise_business", "advise_domain", "advise_method", "advise_technical"]
