//! The macros of pgfleet; use them through the crate `pgfleet`, which what they expand to refers to.
//!
//! [`migrations!`](macro@migrations) and [`seeds!`](macro@seeds) put the files of a folder into the program, and
//! [`#[test]`](macro@test) gives a test a migrated database of its own. Folders are read and judged while the program
//! is compiled, by the same code that reads them at run time, so a misspelt file name is an error of the compiler.
//!
//! Nothing here talks to a server.

mod embed;
mod test;

use proc_macro2::Span;
use std::path::PathBuf;

/// Puts a folder of migrations into the program.
///
/// The path is relative to the folder of the crate's `Cargo.toml`. The layout is recognised as always, or named:
///
/// ```text
/// pgfleet::Service::builder("trip").migrations(pgfleet::migrations!("migrations"))
/// pgfleet::Service::builder("trip").migrations(pgfleet::migrations!("db/migrations", layout = "goose"))
/// ```
///
/// Expands to a constant `pgfleet::embed::Folder`. What would be an error of `pgfleet migrate` about the folder (a
/// misspelt name, two files with one version, an annotation that nobody knows) is an error of the compiler here.
///
/// A changed or removed file compiles the crate again. A **new** file is seen when the crate is compiled again for any
/// reason, but does not cause that: cargo does not know that the folder matters. A `build.rs` makes it certain:
///
/// ```text
/// // build.rs
/// fn main() {
///     println!("cargo:rerun-if-changed=migrations");
/// }
/// ```
#[proc_macro]
pub fn migrations(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let expanded = manifest_dir().and_then(|root| embed::migrations(input.into(), &root));
    expanded.unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Puts a folder of seed files into the program.
///
/// The path is relative to the folder of the crate's `Cargo.toml`. The `.sql` files directly in the folder are taken.
///
/// ```text
/// pgfleet::Service::builder("trip").seeds(pgfleet::seeds!("seeds"))
/// ```
///
/// Expands to a constant `pgfleet::embed::Seeds`. For new files, what [`migrations!`](macro@migrations) says holds.
#[proc_macro]
pub fn seeds(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let expanded = manifest_dir().and_then(|root| embed::seeds(input.into(), &root));
    expanded.unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes an `async fn` a test with a migrated and seeded database of its own.
///
/// ```text
/// #[pgfleet::test]
/// async fn a_trip_has_seats(db: pgfleet::test::Database) -> Result<(), Error> { … }
///
/// #[pgfleet::test(migrations = "db/migrations", layout = "goose", seeds = "db/seeds")]
/// #[pgfleet::test(service = crate::service)]
/// ```
///
/// The function takes one argument, of any type that is `pgfleet::test::FromDatabase`, and returns nothing or a
/// `Result` whose error is `Debug`. Other attributes, such as `#[ignore]` and `#[should_panic]`, stay on the test.
///
/// * `migrations`: the folder of migrations, as in [`migrations!`](macro@migrations). Without it, the folder
///   `migrations` beside `Cargo.toml` where there is one.
/// * `layout`: the layout of that folder, when it is not to be recognised.
/// * `seeds`: the folder of seeds. Without it, the folder `seeds` beside `Cargo.toml` where there is one.
/// * `service`: the path of a `fn() -> pgfleet::Builder`, when the database is to be as a service makes it, with its
///   migrations and seeders in Rust. It takes the place of all the others, and no folder is taken by default then.
#[proc_macro_attribute]
pub fn test(arguments: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let item = proc_macro2::TokenStream::from(item);
    match manifest_dir().and_then(|root| test::expand(arguments.into(), item.clone(), &root)) {
        Ok(expanded) => expanded.into(),
        // With the function itself, what calls or names it is not an error too.
        Err(error) => error.into_compile_error().into_iter().chain(item).collect::<proc_macro2::TokenStream>().into(),
    }
}

/// The folder of the crate that is being compiled.
fn manifest_dir() -> syn::Result<PathBuf> {
    std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).ok_or_else(|| {
        syn::Error::new(Span::call_site(), "CARGO_MANIFEST_DIR is not set\nhint: compile the crate with cargo")
    })
}
