-- The search index: of each course the tokens that `courses.search` holds, under its place. It keeps no text of its own,
-- no positions and no sizes. The ascii tokenizer takes tokens as they are: they are folded already, and only these
-- characters stand in them beside ASCII letters, digits and everything above ASCII.
CREATE VIRTUAL TABLE course_index USING fts5 (
    search, content = '', columnsize = 0, detail = none, prefix = '1 2 3 4', tokenize = "ascii tokenchars '+#.=@~-_'"
);

-- Where a course stands in the search index, which answers in the order of places: the published ones by popularity, the
-- others below zero.
CREATE TABLE places (
    place INTEGER NOT NULL PRIMARY KEY,
    n INTEGER NOT NULL UNIQUE REFERENCES courses (n)
) STRICT;

-- The index's own list of tokens with the number of courses that have each, for the doctor. It stores nothing.
CREATE VIRTUAL TABLE course_index_tokens USING fts5vocab (course_index, row);

-- The last number given out, in a single row.
CREATE TABLE numbers (last INTEGER NOT NULL) STRICT;
INSERT INTO numbers (last) VALUES (0);

-- What the planner is to assume about the catalogue: rows in all, and rows that share the first columns of an index. Without
-- this it takes a course's status for rare, and tests every published course against a search instead of looking up the
-- few that match. Assumed once and never measured, plans are the same on every installation.
ANALYZE sqlite_schema;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('courses', 'sqlite_autoindex_courses_1', '100000 1'),
    ('courses', 'courses_by_external_id', '100000 10000 1'),
    ('courses', 'courses_by_creator', '100000 100'),
    ('courses', 'courses_changed', '100000 50000 2 1'),
    ('courses', 'courses_popular', '100000 50000 20 1'),
    ('courses', 'courses_popular_in_category', '100000 50000 2500 2 1'),
    ('courses', 'courses_popular_at_level', '100000 50000 12500 5 1'),
    ('courses', 'courses_popular_in_category_at_level', '100000 50000 2500 600 2 1'),
    ('courses', 'courses_newest', '100000 50000 2 1 1'),
    ('courses', 'courses_newest_in_category', '100000 50000 2500 2 1 1'),
    ('courses', 'courses_by_rating', '100000 50000 1000 1 1'),
    ('courses', 'courses_by_rating_in_category', '100000 50000 2500 50 1 1'),
    ('courses', 'courses_by_price', '100000 50000 500 1 1'),
    ('courses', 'courses_by_price_in_category', '100000 50000 2500 25 1 1');
