//! The `stagegate` program: everything is in the library.
fn main() -> std::process::ExitCode {
    stagegate::cli::main()
}
