"""The compliance report: what an auditor, a data protection officer and a works council want to see of a month."""
