"""How LearnFlow is paid: each gateway fulfils the payment port of `learnflow_core.ports`."""
