-- The search index: the tokens of each course, which `courses.search` holds as well, in the order of the tokens.
CREATE TABLE course_tokens (
    token TEXT NOT NULL,
    n BIGINT NOT NULL REFERENCES courses (n),
    PRIMARY KEY (token, n)
) WITHOUT ROWID;
