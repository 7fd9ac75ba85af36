//! The embedded home: one `SQLite` file.
