//! A file that is new in an example compiles the program anew, which carries it.

use std::fs;
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let services = Path::new("../../examples/masar/services");
    // Not the whole folder: it has the state of whoever tries the example in place.
    for service in fs::read_dir(services).into_iter().flatten().flatten() {
        for folder in ["migrations", "seeds"] {
            println!("cargo:rerun-if-changed={}", service.path().join(folder).display());
        }
    }
}
