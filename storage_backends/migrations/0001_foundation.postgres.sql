-- A list comes as JSON text in one parameter, and is read by SQLite's json_each: this is the same for PostgreSQL, simple
-- enough for its planner to see through.
CREATE FUNCTION json_each(text) RETURNS TABLE (key bigint, value text) LANGUAGE sql IMMUTABLE AS $$
    SELECT ordinality - 1, element FROM jsonb_array_elements_text(CAST($1 AS jsonb)) WITH ORDINALITY AS t (element, ordinality)
$$;

-- The search index: of each course the tokens that `courses.search` holds, as they are; no parser and no dictionary sees
-- them. It is a table of its own, because a row of `courses` that is written has all its tokens indexed again. Entries go
-- straight into the index: a list of pending ones, which PostgreSQL keeps otherwise, is read whole by every search. There
-- is no foreign key: to check one is to read where all write who add courses, and each would undo the others.
CREATE TABLE course_search (
    n BIGINT NOT NULL PRIMARY KEY,
    published BIGINT NOT NULL CHECK (published IN (0, 1)),
    vec tsvector NOT NULL
);
CREATE INDEX course_search_by_token ON course_search USING gin (vec) WITH (fastupdate = off);

-- What writers lock, before all else and never a row of it: together, or one alone that lost to others before.
CREATE TABLE gate ();

-- Numbers that nothing has had. A row that held the last one would be written by all who add courses, one at a time.
CREATE SEQUENCE numbers;
