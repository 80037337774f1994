//! A file that is new in an example compiles the program anew, which carries it.

use std::fs;
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Not the whole of an example: it has the state of whoever tries it in place.
    for sets in ["masar/services", "abp-saas/services", "abp-saas/modules"] {
        for set in fs::read_dir(Path::new("../../examples").join(sets)).into_iter().flatten().flatten() {
            // One that does not exist would count as changed each time.
            for folder in ["migrations", "seeds"].map(|folder| set.path().join(folder)).iter().filter(|f| f.is_dir()) {
                println!("cargo:rerun-if-changed={}", folder.display());
            }
        }
    }
}
