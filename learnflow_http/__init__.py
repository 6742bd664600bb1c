"""The HTTP face of LearnFlow: thin, it translates requests into calls of the core and results into replies."""
