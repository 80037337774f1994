//! A file that is new in an example compiles the program anew, which carries it.

use std::fs;
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Not the whole of an example: it has the state of whoever tries it in place.
    for sets in ["masar/services", "abp-saas/services", "abp-saas/modules"] {
        for set in fs::read_dir(Path::new("../../examples").join(sets)).into_iter().flatten().flatten() {
            for folder in ["migrations", "seeds"] {
                println!("cargo:rerun-if-changed={}", set.path().join(folder).display());
            }
        }
    }
}
