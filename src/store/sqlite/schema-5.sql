-- Ended upgrades that keep something still are looked for again and again, and are few among many.
CREATE INDEX upgrades_that_keep ON upgrades (id) WHERE status ->> '$.kept' IS NOT NULL;
