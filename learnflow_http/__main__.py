"""`python -m learnflow_http` is `learnflow`."""

from learnflow_http.cli import main

if __name__ == "__main__":
    main()
