"""Who answers, who is tried beside, and how that is decided: releases, the ledger, policies, assignment of units."""
