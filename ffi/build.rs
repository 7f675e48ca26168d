//! Gives the shared library the name by which programs ask the loader for it: it changes when programs have to be built again.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // As `MIRRORBUS_ABI_VERSION` in src/version.rs, less one; a test compares them.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libmirrorbus.so.0");
    // Its threads and its handler of SIGBUS stay, so it must not be unloaded under them.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
