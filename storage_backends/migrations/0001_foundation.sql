-- The words are PostgreSQL's; the SQLite driver reads BIGINT as INTEGER, leaves COLLATE "C" out and adds STRICT.
-- Instants are microseconds since 1970-01-01 UTC, lists are JSON, booleans are 0 and 1. There are no triggers: what must
-- agree is written together by the repository, and `learnflow doctor` looks whether it does.

-- Who publishes and who pays. What is taken of the licences stands beside their number, so that one guarded UPDATE
-- takes one and no two can take the last.
CREATE TABLE accounts (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    plan TEXT COLLATE "C" NOT NULL CHECK (plan IN ('starter', 'professional', 'enterprise')),
    per_minute BIGINT CHECK (per_minute > 0),
    licenses BIGINT CHECK (licenses >= 0),
    suspended_at BIGINT,
    created_at BIGINT NOT NULL,
    live_licenses BIGINT NOT NULL DEFAULT 0 CHECK (live_licenses >= 0),
    test_licenses BIGINT NOT NULL DEFAULT 0 CHECK (test_licenses >= 0)
);
CREATE INDEX accounts_in_order ON accounts (created_at, id);

-- Secrets that act for an account; only their digests.
CREATE TABLE api_keys (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    account_id TEXT COLLATE "C" NOT NULL REFERENCES accounts (id),
    name TEXT COLLATE "C" NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    prefix TEXT COLLATE "C" NOT NULL CHECK (length(prefix) BETWEEN 1 AND 16),
    digest TEXT COLLATE "C" NOT NULL UNIQUE CHECK (length(digest) = 64),
    scopes TEXT COLLATE "C" NOT NULL,
    mode TEXT COLLATE "C" NOT NULL CHECK (mode IN ('live', 'test')),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    last_used_at BIGINT
);
CREATE INDEX api_keys_in_order ON api_keys (account_id, created_at, id);

-- People of an account, in one mode. `email_key` is the folded email, null once the person is erased: the row stays,
-- because the books refer to it, and may then hold nothing personal.
CREATE TABLE users (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    account_id TEXT COLLATE "C" NOT NULL REFERENCES accounts (id),
    mode TEXT COLLATE "C" NOT NULL CHECK (mode IN ('live', 'test')),
    email TEXT COLLATE "C" NOT NULL CHECK (length(email) <= 254),
    name TEXT COLLATE "C" NOT NULL CHECK (length(name) <= 200),
    role TEXT COLLATE "C" NOT NULL CHECK (role IN ('learner', 'instructor', 'admin')),
    password_hash TEXT COLLATE "C",
    external_id TEXT COLLATE "C" CHECK (length(external_id) BETWEEN 1 AND 128),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT,
    email_key TEXT COLLATE "C",
    CHECK (deleted_at IS NOT NULL OR (email_key IS NOT NULL AND length(email) > 0 AND length(name) > 0)),
    CHECK (
        deleted_at IS NULL
        OR (email = '' AND name = '' AND email_key IS NULL AND password_hash IS NULL AND external_id IS NULL)
    ),
    UNIQUE (id, account_id, mode)
);
CREATE UNIQUE INDEX users_by_email ON users (mode, email_key, account_id);
CREATE UNIQUE INDEX users_by_external_id ON users (account_id, mode, external_id);
CREATE INDEX users_in_order ON users (account_id, mode, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX users_changed ON users (account_id, mode, updated_at, id);

-- Categories are made by the courses in them.
CREATE TABLE categories (
    slug TEXT COLLATE "C" NOT NULL PRIMARY KEY CHECK (length(slug) BETWEEN 1 AND 64),
    name TEXT COLLATE "C" CHECK (length(name) BETWEEN 1 AND 200)
);

-- How many published courses there are: in all (an empty name), in a category (`@design`), at a level (`~beginner`), and
-- in a category at a level (`~beginner@design`).
CREATE TABLE totals (
    list TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    courses BIGINT NOT NULL CHECK (courses >= 0)
);

-- How many published courses have a word, have it in their title (`=word`), and have one that begins so (`*wo`, `*=wo`).
CREATE TABLE words (
    word TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    courses BIGINT NOT NULL CHECK (courses >= 0)
);

-- Where courses stand in those lists, in each order that begins with a column of `courses` (`sort`); an empty filter is
-- none. A block holds the courses from its position (`key`, `id`) up to the next block's; a span is some dozen blocks,
-- and begins where its first one does. The first of a list begin before every course.
CREATE TABLE spans (
    no BIGINT NOT NULL PRIMARY KEY,
    sort TEXT COLLATE "C" NOT NULL,
    category TEXT COLLATE "C" NOT NULL,
    level TEXT COLLATE "C" NOT NULL,
    key BIGINT NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    courses BIGINT NOT NULL CHECK (courses >= 0),
    UNIQUE (sort, category, level, key, id)
);
CREATE TABLE blocks (
    no BIGINT NOT NULL PRIMARY KEY,
    span BIGINT NOT NULL REFERENCES spans (no),
    key BIGINT NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    courses BIGINT NOT NULL CHECK (courses >= 0),
    UNIQUE (span, key, id)
);

-- Courses that came to lists (`change` 1) or left them (-1), as they then stood, whom `totals` and `blocks` do not count yet,
-- and tokens that so many more courses have, or fewer, which `words` does not. Writers of courses would else wait for each
-- other at the rows of the lists that all of them are in. Of one course's notes the later have higher numbers.
CREATE TABLE uncounted (
    no BIGINT NOT NULL PRIMARY KEY,
    change BIGINT NOT NULL CHECK (change IN (1, -1)),
    id TEXT COLLATE "C" NOT NULL,
    category TEXT COLLATE "C" NOT NULL,
    level TEXT COLLATE "C" NOT NULL,
    total_students BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    rating BIGINT NOT NULL,
    price_key BIGINT NOT NULL
);
CREATE TABLE uncounted_texts (
    no BIGINT NOT NULL PRIMARY KEY,
    change BIGINT NOT NULL CHECK (change <> 0),
    search TEXT COLLATE "C" NOT NULL
);

-- The catalogue, in rows short enough that enrolments, which count seats here, and lists stay cheap.
-- `n` numbers the courses for the search index, in the order they came. `price_key` and `rating` (-1: none) are what
-- lists sort by. `live_taken` and `test_taken` are the seats that live enrolments hold; lowering `seats` below them is
-- allowed. `total_students` is `students_base + live_taken` as the last sweep found it: four indexes contain it, and an
-- enrolment shall not pay for them. `search` is what the index holds of the course.
CREATE TABLE courses (
    n BIGINT NOT NULL PRIMARY KEY,
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    account_id TEXT COLLATE "C" NOT NULL REFERENCES accounts (id),
    created_by TEXT COLLATE "C" REFERENCES users (id),
    title TEXT COLLATE "C" NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    instructor TEXT COLLATE "C" NOT NULL CHECK (length(instructor) BETWEEN 1 AND 200),
    category TEXT COLLATE "C" NOT NULL REFERENCES categories (slug),
    level TEXT COLLATE "C" NOT NULL CHECK (level IN ('all', 'beginner', 'intermediate', 'advanced')),
    price_amount BIGINT NOT NULL CHECK (price_amount >= 0),
    price_currency TEXT COLLATE "C" NOT NULL CHECK (length(price_currency) = 3),
    price_key BIGINT NOT NULL CHECK (price_key >= 0),
    rating BIGINT NOT NULL CHECK (rating BETWEEN -1 AND 500),
    total_students BIGINT NOT NULL CHECK (total_students >= 0),
    students_base BIGINT NOT NULL CHECK (students_base >= 0),
    live_taken BIGINT NOT NULL DEFAULT 0 CHECK (live_taken >= 0),
    test_taken BIGINT NOT NULL DEFAULT 0 CHECK (test_taken >= 0),
    seats BIGINT CHECK (seats >= 0),
    status TEXT COLLATE "C" NOT NULL CHECK (status IN ('draft', 'published', 'archived')),
    language TEXT COLLATE "C" NOT NULL CHECK (length(language) BETWEEN 1 AND 35),
    prerequisites TEXT COLLATE "C" NOT NULL,
    enrolls_from BIGINT,
    enrolls_until BIGINT,
    access_days BIGINT CHECK (access_days > 0),
    version BIGINT NOT NULL CHECK (version > 0),
    external_id TEXT COLLATE "C" CHECK (length(external_id) BETWEEN 1 AND 128),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    search TEXT COLLATE "C" NOT NULL
);
CREATE UNIQUE INDEX courses_by_external_id ON courses (account_id, external_id);
CREATE INDEX courses_by_creator ON courses (created_by);
CREATE INDEX courses_changed ON courses (status, updated_at, id);
CREATE INDEX courses_popular ON courses (status, total_students, id);
CREATE INDEX courses_popular_in_category ON courses (status, category, total_students, id);
CREATE INDEX courses_popular_at_level ON courses (status, level, total_students, id);
CREATE INDEX courses_popular_in_category_at_level ON courses (status, category, level, total_students, id);
-- Of the other orders each has two, and both know the level: there are four, so few entries are passed over for one.
CREATE INDEX courses_newest ON courses (status, created_at, id, level);
CREATE INDEX courses_newest_in_category ON courses (status, category, created_at, id, level);
CREATE INDEX courses_by_rating ON courses (status, rating, id, level);
CREATE INDEX courses_by_rating_in_category ON courses (status, category, rating, id, level);
CREATE INDEX courses_by_price ON courses (status, price_key, id, level);
CREATE INDEX courses_by_price_in_category ON courses (status, category, price_key, id, level);

-- The long texts of a course, which only its own page shows.
CREATE TABLE course_texts (
    course_id TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES courses (id),
    description TEXT COLLATE "C" NOT NULL,
    curriculum TEXT COLLATE "C" NOT NULL
);

-- Courses whose `total_students` the next sweep brings up to date.
CREATE TABLE unsettled (
    course_id TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES courses (id)
);

-- How often what lists, categories and published courses show was changed: the sum of all `n`. Each change adds a row, so
-- that none waits for another; many rows are made one now and then.
CREATE TABLE catalogue_changes (
    no BIGINT NOT NULL PRIMARY KEY,
    n BIGINT NOT NULL CHECK (n > 0)
);

-- The process that does what is done for all of them, and until when, if it does not say so again.
CREATE TABLE leader (
    no BIGINT NOT NULL PRIMARY KEY CHECK (no = 1),
    name TEXT COLLATE "C" NOT NULL,
    until BIGINT NOT NULL
);

-- Places in courses. An enrolment belongs to its user's account and mode, and cannot be moved to another: hence the
-- foreign key of three. `payment_id` and `certificate_id` have none, since the rows they name refer back to this one
-- and come later; the doctor follows them.
CREATE TABLE enrollments (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    account_id TEXT COLLATE "C" NOT NULL,
    mode TEXT COLLATE "C" NOT NULL,
    user_id TEXT COLLATE "C" NOT NULL,
    course_id TEXT COLLATE "C" NOT NULL REFERENCES courses (id),
    status TEXT COLLATE "C" NOT NULL
        CHECK (status IN ('pending', 'active', 'completed', 'cancelled', 'refunded', 'expired')),
    progress BIGINT NOT NULL CHECK (progress BETWEEN 0 AND 100),
    licensed BIGINT NOT NULL CHECK (licensed IN (0, 1)),
    payment_id TEXT COLLATE "C",
    certificate_id TEXT COLLATE "C",
    enrolled_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    completed_at BIGINT,
    expires_at BIGINT,
    CHECK (licensed = 0 OR payment_id IS NULL),
    CHECK ((status = 'completed') = (completed_at IS NOT NULL)),
    CHECK (status <> 'completed' OR (progress = 100 AND certificate_id IS NOT NULL)),
    FOREIGN KEY (user_id, account_id, mode) REFERENCES users (id, account_id, mode)
);
CREATE UNIQUE INDEX enrollments_live ON enrollments (user_id, course_id)
    WHERE status IN ('pending', 'active', 'completed');
CREATE INDEX enrollments_of_account ON enrollments (account_id, mode, enrolled_at, id);
CREATE INDEX enrollments_changed ON enrollments (account_id, mode, updated_at, id);
CREATE INDEX enrollments_of_user ON enrollments (user_id, enrolled_at, id);
CREATE INDEX enrollments_of_course ON enrollments (course_id, enrolled_at, id);
CREATE INDEX enrollments_expiring ON enrollments (expires_at, id) WHERE status = 'active' AND expires_at IS NOT NULL;

-- What was agreed for enrolments, written down before the payment service is asked. `due_at` is when an unresolved one is
-- to be carried on; who takes it up moves that into the future first, and so keeps others from it.
CREATE TABLE payments (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    enrollment_id TEXT COLLATE "C" NOT NULL REFERENCES enrollments (id),
    payee_id TEXT COLLATE "C" NOT NULL REFERENCES accounts (id),
    mode TEXT COLLATE "C" NOT NULL CHECK (mode IN ('live', 'test')),
    method_id TEXT COLLATE "C" NOT NULL,
    token TEXT COLLATE "C" NOT NULL,
    amount BIGINT NOT NULL CHECK (amount > 0),
    currency TEXT COLLATE "C" NOT NULL CHECK (length(currency) = 3),
    course_version BIGINT NOT NULL CHECK (course_version > 0),
    status TEXT COLLATE "C" NOT NULL
        CHECK (status IN ('charging', 'reversing', 'charged', 'declined', 'refunding', 'refunded')),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    due_at BIGINT,
    tries BIGINT NOT NULL CHECK (tries >= 0),
    CHECK ((status IN ('charging', 'reversing', 'refunding')) = (due_at IS NOT NULL))
);
CREATE INDEX payments_of_enrollment ON payments (enrollment_id);
CREATE INDEX payments_due ON payments (due_at, id) WHERE due_at IS NOT NULL;

-- Means of payment that the payment service keeps for users.
CREATE TABLE payment_methods (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    token TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    deleted_at BIGINT,
    forgotten_at BIGINT CHECK (deleted_at IS NOT NULL OR forgotten_at IS NULL)
);
CREATE INDEX payment_methods_of_user ON payment_methods (user_id, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX payment_methods_unforgotten ON payment_methods (deleted_at, id)
    WHERE deleted_at IS NOT NULL AND forgotten_at IS NULL;

-- The double-entry ledger: each row debits one account and credits another by the same amount, so it cannot be out of
-- balance, and a payment makes each of its movements once. Rows are added, and neither changed nor deleted.
CREATE TABLE ledger (
    payment_id TEXT COLLATE "C" NOT NULL REFERENCES payments (id),
    movement TEXT COLLATE "C" NOT NULL,
    mode TEXT COLLATE "C" NOT NULL CHECK (mode IN ('live', 'test')),
    account_id TEXT COLLATE "C" NOT NULL REFERENCES accounts (id),
    debit TEXT COLLATE "C" NOT NULL,
    credit TEXT COLLATE "C" NOT NULL,
    amount BIGINT NOT NULL CHECK (amount > 0),
    currency TEXT COLLATE "C" NOT NULL CHECK (length(currency) = 3),
    at BIGINT NOT NULL,
    PRIMARY KEY (payment_id, movement),
    CHECK (
        (movement = 'charged' AND debit = 'receivable' AND credit = 'revenue')
        OR (movement = 'refunding' AND debit = 'refunds' AND credit = 'refunds_payable')
        OR (movement = 'refunded' AND debit = 'refunds_payable' AND credit = 'receivable')
    )
);

-- What happened to money, keys, tokens, roles, plans and licences, and who did it. Rows are added and never changed; the
-- oldest are let go when the operator says so. `object_id` names rows of several tables, some of which are gone.
CREATE TABLE audit (
    id TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    event TEXT COLLATE "C" NOT NULL,
    object_id TEXT COLLATE "C" NOT NULL,
    account_id TEXT COLLATE "C",
    actor TEXT COLLATE "C" NOT NULL,
    request_id TEXT COLLATE "C",
    detail TEXT COLLATE "C" CHECK (length(detail) <= 80),
    PRIMARY KEY (at, id)
);
CREATE INDEX audit_of_object ON audit (object_id, event);

-- Proofs of completion, one for an enrolment.
CREATE TABLE certificates (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    account_id TEXT COLLATE "C" NOT NULL,
    mode TEXT COLLATE "C" NOT NULL,
    enrollment_id TEXT COLLATE "C" NOT NULL UNIQUE REFERENCES enrollments (id),
    user_id TEXT COLLATE "C" NOT NULL,
    course_id TEXT COLLATE "C" NOT NULL REFERENCES courses (id),
    recipient TEXT COLLATE "C" NOT NULL CHECK (length(recipient) <= 200),
    course_title TEXT COLLATE "C" NOT NULL CHECK (length(course_title) BETWEEN 1 AND 200),
    issued_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revoked_at BIGINT,
    FOREIGN KEY (user_id, account_id, mode) REFERENCES users (id, account_id, mode)
);
CREATE INDEX certificates_of_account ON certificates (account_id, mode, issued_at, id);
CREATE INDEX certificates_changed ON certificates (account_id, mode, updated_at, id);
CREATE INDEX certificates_of_user ON certificates (user_id, issued_at, id);
CREATE INDEX certificates_of_course ON certificates (course_id, issued_at, id);

-- Sign-ins. Every token belongs to a family, and ends with it.
CREATE TABLE token_families (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    key_id TEXT COLLATE "C" REFERENCES api_keys (id),
    scopes TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT
);
CREATE INDEX token_families_of_user ON token_families (user_id);
CREATE INDEX token_families_of_key ON token_families (key_id);
CREATE INDEX token_families_by_expiry ON token_families (expires_at);

-- The chain of refresh tokens that rotation has met.
CREATE TABLE refresh_tokens (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    family_id TEXT COLLATE "C" NOT NULL REFERENCES token_families (id),
    parent_id TEXT COLLATE "C",
    successor_id TEXT COLLATE "C",
    issued_at BIGINT NOT NULL,
    rotated_at BIGINT,
    retired_at BIGINT
);
CREATE INDEX refresh_tokens_of_family ON refresh_tokens (family_id);

-- Single tokens ended before their time, remembered until it comes.
CREATE TABLE revoked_tokens (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    expires_at BIGINT NOT NULL
);
CREATE INDEX revoked_tokens_by_expiry ON revoked_tokens (expires_at);

-- Replies kept under idempotency keys. A body is JSON text.
CREATE TABLE replies (
    scope TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    fingerprint TEXT COLLATE "C" NOT NULL,
    status BIGINT NOT NULL,
    body TEXT COLLATE "C" NOT NULL,
    claimed_at BIGINT NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE INDEX replies_by_age ON replies (claimed_at);

-- What the sandbox's payment service was asked and answered, as a real one keeps it on its own side.
CREATE TABLE sandbox_charges (
    key TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    outcome TEXT COLLATE "C" NOT NULL,
    amount BIGINT NOT NULL CHECK (amount > 0),
    currency TEXT COLLATE "C" NOT NULL CHECK (length(currency) = 3),
    created_at BIGINT NOT NULL
);
