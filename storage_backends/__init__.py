"""Where LearnFlow keeps its data: each backend fulfils `learnflow_core.ports` with one driver library."""
