//! A new migration compiles the service anew.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
