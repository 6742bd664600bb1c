-- The search index: of each course the tokens that `courses.search` holds, under its number. It keeps no text of its own,
-- no positions and no sizes. The ascii tokenizer takes tokens as they are: they are folded already, and only these
-- characters stand in them beside ASCII letters, digits and everything above ASCII.
CREATE VIRTUAL TABLE course_index USING fts5 (
    search, content = '', columnsize = 0, detail = none, prefix = '1 2 3 4', tokenize = "ascii tokenchars '+#.=@~-_'"
);

-- The index's own list of tokens with the number of courses that have each, for the doctor. It stores nothing.
CREATE VIRTUAL TABLE course_index_tokens USING fts5vocab (course_index, row);
