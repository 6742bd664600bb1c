-- A list comes as JSON text in one parameter, and is read by SQLite's json_each: this is the same for PostgreSQL, simple
-- enough for its planner to see through.
CREATE FUNCTION json_each(text) RETURNS TABLE (key bigint, value text) LANGUAGE sql IMMUTABLE AS $$
    SELECT ordinality - 1, element FROM jsonb_array_elements_text(CAST($1 AS jsonb)) WITH ORDINALITY AS t (element, ordinality)
$$;

-- The search index: the tokens that `courses.search` holds, as they are; no parser and no dictionary sees them. Entries
-- go straight into it: a list of pending ones, which PostgreSQL keeps otherwise, is read whole by every search.
ALTER TABLE courses
    ADD COLUMN vec tsvector GENERATED ALWAYS AS (array_to_tsvector(string_to_array(search, ' '))) STORED;
CREATE INDEX courses_by_token ON courses USING gin (vec) WITH (fastupdate = off);

-- What writers lock, before all else and never a row of it: together, or one alone that lost to others before.
CREATE TABLE gate ();

-- Numbers that nothing has had. A row that held the last one would be written by all who add courses, one at a time.
CREATE SEQUENCE numbers;
